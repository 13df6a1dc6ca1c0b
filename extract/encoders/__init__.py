"""Encoders by name, each imported when it is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from avcil.extract.errors import EncoderError
from avcil.registry import HOW_TO_REFER, Registry

if TYPE_CHECKING:
    import torch

    from avcil.extract.encoders.base import Encoder

ENCODERS: Registry[Callable[[torch.device], Encoder]] = Registry(
    kind="encoder",
    built_in={
        "public-parts": "avcil.extract.encoders.public_parts:load_from_hub",
        "tiny": "avcil.extract.encoders.tiny:load",
    },
    error=EncoderError,
    group="avcil.encoders",
)
"""Functions, or classes, that build an encoder on a device."""
RELEASES = {"sam-audio": "facebook/sam-audio-large", "pe-av": "facebook/pe-av-large"}
"""Names for releases on the Hugging Face Hub."""
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # owner/model


def check_encoder(name: str) -> None:
    """Check that a name can be an encoder's, without loading anything.

    Raises:
        EncoderError: no encoder has this name.
    """
    if name.endswith(".py"):
        ENCODERS.identify(name)
    if not (is_named(name) or Path(name).exists() or HUB_ID.fullmatch(name)):
        raise EncoderError(
            f"unknown encoder {name!r}; choose one of {', '.join(RELEASES)}, {ENCODERS.choices}, "
            "or give the folder of a SAM-Audio or PE-AV release, its id on the Hugging Face Hub, "
            f"or {HOW_TO_REFER}"
        )


def is_named(name: str) -> bool:
    """Return whether this is the name of an encoder, and not a path or an id on the Hub."""
    return name in RELEASES or name in ENCODERS


def absolute(name: str) -> str:
    """Return a name under which a process in another folder finds the encoder."""
    if name in ENCODERS:
        return ENCODERS.identify(name).reference
    return str(Path(name).absolute()) if name not in RELEASES and Path(name).exists() else name


def load_encoder(name: str, device: torch.device, kept: Path = Path("data/encoders")) -> Encoder:
    """Load an encoder onto a device.

    Args:
        name: of ENCODERS or RELEASES; or the folder of a SAM-Audio or PE-AV release or of
            SAM-Audio's public parts; or SAM-Audio's weights, a file beside its config.json; or a
            release's id on the Hugging Face Hub.
        device: where to run it.
        kept: the folder for the small part that is kept of SAM-Audio releases on the Hub.

    Raises:
        EncoderError: no encoder has this name, or its weights cannot be loaded.
    """
    check_encoder(name)
    if name in RELEASES:
        return _from_hub(RELEASES[name], device, kept)
    if name in ENCODERS:
        return _build(name, device)
    if Path(name).is_dir():
        return _from_folder(Path(name), device)
    if Path(name).exists():
        from avcil.extract.encoders import sam_audio

        return sam_audio.load(Path(name), device)
    return _from_hub(name, device, kept)


def _build(name: str, device: torch.device) -> Encoder:
    """Build an encoder that may come from another package."""
    from avcil.extract.encoders.base import Encoder

    build = ENCODERS[name]
    with ENCODERS.errors_named(name):
        encoder: object = build(device)
    if not isinstance(encoder, Encoder):
        raise EncoderError(
            f"encoder {name!r} cannot be used: calling it with a device gives {encoder!r}, "
            "not an avcil.extract.encoders.base.Encoder"
        )
    return encoder


def _from_folder(folder: Path, device: torch.device) -> Encoder:
    from avcil.extract.encoders import pe_av, public_parts, sam_audio

    if pe_av.is_release(folder):
        return pe_av.load(folder, device)
    if public_parts.is_release(folder):
        return public_parts.load(folder, device)
    return sam_audio.load(folder, device)


def _from_hub(repo: str, device: torch.device, root: Path) -> Encoder:
    from avcil.extract.encoders import hub, pe_av, sam_audio

    kept = hub.kept_folder(repo, root)
    if hub.is_kept(kept):
        return sam_audio.load(kept, device)
    folder = hub.fetch_config(repo)
    if pe_av.is_release(folder):
        return pe_av.load(hub.fetch_safetensors(repo), device)
    sam_audio.read_config(folder)  # refuse another model before its weights are fetched
    return sam_audio.load(hub.fetch_checkpoint(repo, kept), device, kept)
