"""Where a run computes, and how it is made to compute the same each time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from avcil.cache.schema import Encoding
from avcil.incremental.config.config import Config
from avcil.runtime.device import multiplies_bf16

MANY_PRODUCTS = 5 * 10**7
"""Multiplications of a step's largest layers above which a second CPU thread pays."""


def autocast_type(config: Config, encoding: Encoding, device: torch.device) -> torch.dtype | None:
    """Return the type of the products of a run's head, by `Config.precision`.

    None is float32, and on a GPU truly so: TF32 stays off.
    """
    precision = config.precision
    if precision == "auto":
        pays = device.type == "cuda" or not computes_on_one_thread(config, encoding)
        precision = "bf16" if pays and multiplies_bf16(device) else "fp32"
    return torch.bfloat16 if precision == "bf16" else None


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
