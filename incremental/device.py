"""Where a run computes, and how it is made to compute the same each time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from avcil.cache.schema import Encoding
from avcil.incremental.config import Config
from avcil.incremental.errors import ConfigError
from avcil.machine import cores, host_memory

MANY_PRODUCTS = 5 * 10**7
"""Multiplications of a step's largest layers above which a second CPU thread pays."""


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of this name; `auto` takes the first GPU if there is one.

    Raises:
        ConfigError: the name is unknown, or this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {name!r}; choose auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {name!r} cannot be used; choose auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ConfigError(f"device {name!r} is not there: PyTorch sees {count} CUDA devices")
    return device


def autocast_type(config: Config, encoding: Encoding, device: torch.device) -> torch.dtype | None:
    """Return the type of the products of a run's head, by `Config.precision`.

    None is float32, and on a GPU truly so: TF32 stays off.
    """
    precision = config.precision
    if precision == "auto":
        pays = device.type == "cuda" or not computes_on_one_thread(config, encoding)
        precision = "bf16" if pays and multiplies_bf16(device) else "fp32"
    return torch.bfloat16 if precision == "bf16" else None


def multiplies_bf16(device: torch.device) -> bool:
    """Tell whether a device has instructions for products in bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Absent from the oldest PyTorch that we accept.
    able = getattr(torch.cpu, "get_capabilities", dict[str, object])()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def made_current(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU the current one within the context; on others a graph would record nothing."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def use_granted_cores() -> None:
    """Compute on no more threads than there are cores for this process."""
    torch.set_num_threads(min(torch.get_num_threads(), cores()))


def compute_deterministically() -> None:
    """Make the same seed give the same bits on the same machine."""
    # cuBLAS reads this when its first handle is made; without it some products vary.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Else every new tensor is filled first; nothing here reads what it has not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.set_float32_matmul_precision("highest")  # NVIDIA's containers turn TF32 on


def computes_on_one_thread(config: Config, encoding: Encoding) -> bool:
    """Tell whether a run is so small that a second CPU thread would not pay."""
    tokens = encoding.visual_tokens + encoding.audio_tokens
    products = config.batch_size * tokens * int(config.head["width"]) ** 2
    return products <= MANY_PRODUCTS


@contextmanager
def suitable_threads(config: Config, encoding: Encoding) -> Iterator[None]:
    """Compute a small run on one CPU thread and a large one on all, within the context.

    Threads wait for each other after every product. On two cores that other programs used as well,
    a run of the demo took 11 s with one thread and 126 s with two.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if computes_on_one_thread(config, encoding) else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def free_memory(device: torch.device) -> int:
    """Return the bytes that may still be allocated: on a GPU, or in this process's host memory."""
    if device.type == "cuda":
        # PyTorch keeps what was freed; that is not free to others, but to us.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    return host_memory().free
