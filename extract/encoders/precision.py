"""The numeric precisions of encoders, and float32 without TF32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch

from avcil.extract.encoders.base import Precision
from avcil.runtime.device import multiplies_bf16

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def precisions_on(device: torch.device) -> tuple[Precision, ...]:
    """Return the precisions of the vision tower, the usual one of the device first.

    The audio tower, a twentieth of the work, always computes in fp32.
    """
    if device.type != "cuda":
        return ("fp32", "bf16", "fp16")
    return ("bf16", "fp32", "fp16") if multiplies_bf16(device) else ("fp16", "fp32", "bf16")


@contextmanager
def exact() -> Iterator[None]:
    """Compute in float32 and not in TF32, whose errors are 1e-3.

    TF32 is cuDNN's default, and NVIDIA's containers turn it on for matrix products as well.
    Earlier settings are restored, whether made by PyTorch's older switches or `fp32_precision`.
    """
    cudnn, switches = torch.backends.cudnn, _fp32_switches()
    with ExitStack() as restoring:
        for operations in switches:
            restoring.callback(setattr, operations, "fp32_precision", operations.fp32_precision)
        # The older switches raise an error where the newer ones are set to what they cannot say.
        with suppress(RuntimeError):
            before = torch.get_float32_matmul_precision()
            restoring.callback(torch.set_float32_matmul_precision, before)
            torch.set_float32_matmul_precision("highest")
        with suppress(RuntimeError):
            restoring.callback(setattr, cudnn, "allow_tf32", cudnn.allow_tf32)
            cudnn.allow_tf32 = False
        for operations in switches:
            operations.fp32_precision = "ieee"
        yield


def _fp32_switches() -> list[Any]:
    """Return what has PyTorch's newer switch, from 2.9 on: matrix products, convolutions, RNNs."""
    backends: Any = torch.backends
    names = ("conv", "rnn")
    found = [backends.cuda.matmul, *(getattr(backends.cudnn, name, None) for name in names)]
    return [each for each in found if hasattr(each, "fp32_precision")]
