"""The encoders by name, each loaded when it is asked for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from avcil.extract.encoders.base import Encoder
from avcil.extract.errors import EncoderError

if TYPE_CHECKING:
    import torch


ENCODERS = ("sam-audio", "tiny")
SAM_AUDIO = "facebook/sam-audio-large"
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # owner/model


def load_encoder(name: str, device: torch.device, kept: Path = Path("data/encoders")) -> Encoder:
    """Load an encoder onto a device.

    Args:
        name: one of ENCODERS, the folder of a SAM-Audio release, or its id on the Hugging Face
            Hub; "sam-audio" is facebook/sam-audio-large.
        device: where to run it.
        kept: the folder that keeps what is needed of releases on the Hub.

    Raises:
        EncoderError: no encoder has this name, or its weights cannot be loaded.
    """
    if name == "tiny":
        from avcil.extract.encoders import tiny

        return tiny.load(device)
    if name == "sam-audio":
        return _sam_audio(SAM_AUDIO, device, kept)
    if Path(name).is_dir():
        from avcil.extract.encoders import sam_audio

        return sam_audio.load(Path(name), device)
    if HUB_ID.fullmatch(name):
        return _sam_audio(name, device, kept)
    raise EncoderError(
        f"unknown encoder {name!r}; choose one of {', '.join(ENCODERS)}, or give the folder of a "
        "SAM-Audio release or its id on the Hugging Face Hub"
    )


def _sam_audio(repo: str, device: torch.device, kept: Path) -> Encoder:
    from avcil.extract.encoders import sam_audio

    return sam_audio.load_from_hub(repo, kept, device)
