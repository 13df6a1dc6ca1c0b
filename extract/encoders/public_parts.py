"""SAM-Audio's two encoders from public parts, for users without access to SAM-Audio.

PE-Core and DAC-VAE were also released separately. Whether those weights equal the copies in
SAM-Audio has not been verified, so their tokens have a fingerprint and a name of their own.

Source: facebook/PE-Core-L14-336 and facebook/dacvae-watermarked on the Hugging Face Hub.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avcil.extract.encoders.base import Encoder
from avcil.extract.encoders.hub import fetch_file
from avcil.extract.encoders.sam_audio import (
    AUDIO,
    PROJECTION,
    audio_tower,
    below,
    fold_weight_norm,
    vision_tower,
)
from avcil.extract.encoders.towers import TowerEncoder, Towers
from avcil.extract.encoders.weights import read_checkpoint
from avcil.extract.errors import EncoderError
from avcil.runtime.progress import log

NAME = "public-parts"
CODEC_FILE = "weights.pth"
SAMPLE_RATE = 48_000
"""Samples per second of the codec; not stored in its file."""


def is_release(folder: Path) -> bool:
    """Return whether a folder has both parts: weights.pth and PE-Core-<size>.pt."""
    return (folder / CODEC_FILE).is_file() and len(_vision_files(folder)) == 1


def load_from_hub(device: torch.device) -> Encoder:
    """Load public parts of SAM-Audio, PE-Core and DAC-VAE, from the Hub.

    Raises:
        EncoderError: a part cannot be fetched or read.
    """
    log(
        "public-parts: these weights have not been verified to equal SAM-Audio's; caches made with "
        "them cannot be mixed with those of sam-audio"
    )
    codec = fetch_file("facebook/dacvae-watermarked", CODEC_FILE)
    return _load(codec, fetch_file("facebook/PE-Core-L14-336", "PE-Core-L14-336.pt"), device)


def load(folder: Path, device: torch.device) -> Encoder:
    """Load both parts from a folder.

    Raises:
        EncoderError: a file cannot be read, or tensors are missing, unexpected or misshapen.
    """
    return _load(folder / CODEC_FILE, _vision_files(folder)[0], device)


def _vision_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("PE-Core-*.pt"))


def _load(codec: Path, perception: Path, device: torch.device) -> Encoder:
    vision = vision_tower(perception.stem, below(_state(perception), "visual."))
    tensors = {f"audio_codec.{name}": tensor for name, tensor in _state(codec).items()}
    audio = audio_tower(_codec_sizes(codec, tensors), tensors)
    return TowerEncoder(Towers(name=NAME, sample_rate=SAMPLE_RATE), vision, audio, device)


def _state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint: they may be nested in a dictionary, or saved by DDP."""
    content: Mapping[str, Any] = read_checkpoint(path)
    inner = next((content[key] for key in ("state_dict", "weights") if key in content), content)
    return {name.removeprefix("module."): tensor for name, tensor in inner.items()}


def _codec_sizes(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the codec's sizes from its tensors: a kernel is two strides long."""
    folded = fold_weight_norm(below(tensors, AUDIO))
    projection = fold_weight_norm(below(tensors, PROJECTION))
    found = ((re.fullmatch(r"block\.(\d+)\.block\.4\.weight", name), name) for name in folded)
    kernels = {int(match[1]): folded[name].shape[-1] for match, name in found if match}
    if not kernels or "block.0.weight" not in folded or "weight" not in projection:
        raise EncoderError(f"{path} is not the codec of facebook/dacvae-watermarked")
    return {
        "encoder_dim": folded["block.0.weight"].shape[0],
        "encoder_rates": [kernels[block] // 2 for block in sorted(kernels)],
        "latent_dim": projection["weight"].shape[1],
        "codebook_dim": projection["weight"].shape[0] // 2,
    }
