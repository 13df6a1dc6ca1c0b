"""Where a run computes, and how it is made to compute the same each time."""

from __future__ import annotations

import os

import torch

from avcil.incremental.errors import ConfigError


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
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ConfigError(f"device {name!r} is not there: PyTorch sees {count} CUDA devices")
    return device


def compute_deterministically() -> None:
    """Make the same seed give the same bits on the same machine."""
    # cuBLAS reads this when its first handle is made; without it some products vary.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
