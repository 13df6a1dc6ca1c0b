"""Where a run computes, and how it is made to compute the same each time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from avcil.cache.schema import Encoding
from avcil.incremental.config import Config
from avcil.incremental.errors import ConfigError

MANY_PRODUCTS = 10**9
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


@contextmanager
def suitable_threads(config: Config, encoding: Encoding) -> Iterator[None]:
    """Compute a small run on one CPU thread and a large one on all, within the context.

    Threads wait for each other after every product. On two cores that other programs used as well,
    a run of the demo took 11 s with one thread and 126 s with two.
    """
    before = torch.get_num_threads()
    tokens = encoding.visual_tokens + encoding.audio_tokens
    products = config.batch_size * tokens * int(config.head["width"]) ** 2
    torch.set_num_threads(before if products > MANY_PRODUCTS else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
