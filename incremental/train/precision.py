"""Numeric precision, determinism and CPU threads of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from avcil.cache.schema import Encoding
from avcil.incremental.config.config import Config
from avcil.runtime.device import multiplies_bf16

MANY_PRODUCTS = 5 * 10**7
"""Multiplications in the largest layers of a step above which a second CPU thread is faster."""


def autocast_type(config: Config, encoding: Encoding, device: torch.device) -> torch.dtype | None:
    """Return the type in which the head computes products, by `Config.precision`.

    None means float32; TF32 stays off on a GPU.
    """
    precision = config.precision
    if precision == "auto":
        pays = device.type == "cuda" or not computes_on_one_thread(config, encoding)
        precision = "bf16" if pays and multiplies_bf16(device) else "fp32"
    return torch.bfloat16 if precision == "bf16" else None


def compute_deterministically() -> None:
    """Make runs with the same seed bit-identical on the same machine."""
    # cuBLAS reads this when its first handle is created; without it some products vary.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Do not fill new tensors first; nothing here reads uninitialized memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.set_float32_matmul_precision("highest")  # NVIDIA's containers turn TF32 on


def computes_on_one_thread(config: Config, encoding: Encoding) -> bool:
    """Tell whether a run is too small for a second CPU thread to be faster."""
    tokens = encoding.visual_tokens + encoding.audio_tokens
    products = config.batch_size * tokens * int(config.head["width"]) ** 2
    return products <= MANY_PRODUCTS


@contextmanager
def suitable_threads(config: Config, encoding: Encoding) -> Iterator[None]:
    """Use one CPU thread for a small run and all for a large one, within the context.

    Threads synchronize after every product. On two cores shared with other programs, a run of the
    demo took 11 s with one thread and 126 s with two.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if computes_on_one_thread(config, encoding) else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
