"""The encoders by name, each loaded when it is asked for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from avcil.extract.encoders.base import Encoder
from avcil.extract.errors import EncoderError

if TYPE_CHECKING:
    import torch


ENCODERS = ("sam-audio", "pe-av", "public-parts", "tiny")
RELEASES = {"sam-audio": "facebook/sam-audio-large", "pe-av": "facebook/pe-av-large"}
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # owner/model


def check_encoder(name: str) -> None:
    """Refuse a name that cannot be an encoder's, in no time.

    Raises:
        EncoderError: no encoder has this name.
    """
    path = Path(name)
    if not (name in ENCODERS or path.is_dir() or path.is_file() or HUB_ID.fullmatch(name)):
        raise EncoderError(
            f"unknown encoder {name!r}; choose one of {', '.join(ENCODERS)}, or give the folder of "
            "a SAM-Audio or PE-AV release or its id on the Hugging Face Hub"
        )


def load_encoder(name: str, device: torch.device, kept: Path = Path("data/encoders")) -> Encoder:
    """Load an encoder onto a device.

    Args:
        name: one of ENCODERS; or the folder of a SAM-Audio or PE-AV release or of SAM-Audio's
            public parts; or SAM-Audio's weights, a file beside its config.json; or a release's id
            on the Hugging Face Hub. "sam-audio" and "pe-av" are
            the ids in RELEASES.
        device: where to run it.
        kept: the folder that keeps what is needed of SAM-Audio releases on the Hub.

    Raises:
        EncoderError: no encoder has this name, or its weights cannot be loaded.
    """
    check_encoder(name)
    if name == "tiny":
        from avcil.extract.encoders import tiny

        return tiny.load(device)
    if name == "public-parts":
        from avcil.extract.encoders import public_parts

        return public_parts.load_from_hub(device)
    if name in RELEASES:
        return _from_hub(RELEASES[name], device, kept)
    if Path(name).is_dir():
        return _from_folder(Path(name), device)
    if Path(name).is_file():
        from avcil.extract.encoders import sam_audio

        return sam_audio.load(Path(name), device)
    return _from_hub(name, device, kept)


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
