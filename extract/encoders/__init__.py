"""The encoders by name, each loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from avcil.extract.encoders.base import Encoder
from avcil.extract.errors import EncoderError

if TYPE_CHECKING:
    import torch


def _tiny(device: torch.device) -> Encoder:
    from avcil.extract.encoders import tiny

    return tiny.load(device)


ENCODERS: dict[str, Callable[[torch.device], Encoder]] = {"tiny": _tiny}


def load_encoder(name: str, device: torch.device) -> Encoder:
    """Load an encoder onto a device.

    Raises:
        EncoderError: no encoder has this name, or its weights cannot be loaded.
    """
    if name not in ENCODERS:
        raise EncoderError(f"unknown encoder {name!r}; choose one of {', '.join(ENCODERS)}")
    return ENCODERS[name](device)
