"""The encoders by name, each loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from avcil.extract.encoders.base import Encoder
from avcil.extract.errors import EncoderError

if TYPE_CHECKING:
    import torch


def _tiny(device: torch.device) -> Encoder:
    from avcil.extract.encoders import tiny

    return tiny.load(device)


def _sam_audio(device: torch.device) -> Encoder:
    raise EncoderError(
        "SAM-Audio's weights are not fetched for you: ask for access at "
        "https://huggingface.co/facebook/sam-audio-large, download its config.json and "
        "checkpoint.pt into a folder, and give that folder with --encoder; to try things out "
        "without them, use --encoder tiny"
    )


ENCODERS: dict[str, Callable[[torch.device], Encoder]] = {"sam-audio": _sam_audio, "tiny": _tiny}


def load_encoder(name: str, device: torch.device) -> Encoder:
    """Load an encoder onto a device.

    Args:
        name: one of ENCODERS, or the folder of a SAM-Audio release.
        device: where to run it.

    Raises:
        EncoderError: no encoder has this name, or its weights cannot be loaded.
    """
    if name in ENCODERS:
        return ENCODERS[name](device)
    if Path(name).is_dir():
        from avcil.extract.encoders import sam_audio

        return sam_audio.load(Path(name), device)
    raise EncoderError(
        f"unknown encoder {name!r}; choose one of {', '.join(ENCODERS)}, or give the folder of a "
        "SAM-Audio release"
    )
