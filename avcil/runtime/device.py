"""Choose the device to compute on, and query its abilities."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from avcil.errors import DeviceError
from avcil.runtime.machine import cores, host_memory


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of this name; `auto` takes the first GPU if there is one.

    Raises:
        DeviceError: the name is unknown, or this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"unknown device {name!r}; choose auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"unknown device {name!r}; choose auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise DeviceError(
            f"device {name!r} is missing: PyTorch finds {count} CUDA devices; choose auto or cpu"
        )
    return device


def multiplies_bf16(device: torch.device) -> bool:
    """Return whether a device has instructions for products in bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Missing in the oldest supported PyTorch.
    able = getattr(torch.cpu, "get_capabilities", dict[str, object])()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def made_current(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU the current device, since CUDA graphs record only there; no effect on a CPU."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def use_granted_cores() -> None:
    """Compute on no more threads than there are cores for this process."""
    torch.set_num_threads(min(torch.get_num_threads(), cores()))


def free_memory(device: torch.device) -> int:
    """Return the bytes that may still be allocated: on a GPU, or in this process's host memory."""
    if device.type == "cuda":
        # PyTorch keeps freed memory, which this process can allocate again.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    return host_memory().free
