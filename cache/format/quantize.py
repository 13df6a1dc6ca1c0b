"""Convert tokens to the arrays stored on disk, and back.

float16 stores tokens as they are. int8 stores round(x / scale) with scale = max|x| / 127, where the
maximum runs over 64 channels of one token (`group`) or over one channel of the whole clip
(`channel`). A scale per token would have an error of 8e-3 to 3e-2, since a few large channels
determine it.

Shapes: T tokens of D channels; G groups of at most 64 channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from avcil.cache.schema import Encoding, Storage

GROUP = 64
INT8_MAX = 127

Modality = Literal["visual", "audio"]
MODALITIES: tuple[Modality, ...] = ("visual", "audio")


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One array of tokens or scales on disk; row i of it belongs to clip i."""

    name: str
    tail: tuple[int, int]
    """Shape of one clip's chunk."""
    dtype: str
    fill: float
    """The value that other Zarr readers return where nothing was written."""

    @property
    def chunk_bytes(self) -> int:
        """Size of one clip's chunk before compression, without checksum."""
        return math.prod(self.tail) * np.dtype(self.dtype).itemsize


def token_arrays(encoding: Encoding, storage: Storage) -> dict[Modality, tuple[ArraySpec, ...]]:
    """List the arrays that hold each modality: the tokens, then their scales if there are any."""
    tails: dict[Modality, tuple[int, int]] = {
        "visual": (encoding.visual_tokens, encoding.visual_width),
        "audio": (encoding.audio_tokens, encoding.audio_width),
    }
    return {name: _arrays(name, tail, storage) for name, tail in tails.items()}


def _arrays(name: Modality, tail: tuple[int, int], storage: Storage) -> tuple[ArraySpec, ...]:
    if storage.numbers == "float16":
        return (ArraySpec(name, tail, "float16", math.nan),)
    scales = (tail[0], math.ceil(tail[1] / GROUP)) if storage.scales == "group" else (1, tail[1])
    return (
        ArraySpec(name, tail, "int8", 0),
        ArraySpec(f"{name}_scale", scales, "float32", math.nan),
    )


def encode(tokens: NDArray[np.floating], storage: Storage) -> tuple[NDArray[np.generic], ...]:
    """Convert finite tokens [T, D] to the arrays that store them."""
    if storage.numbers == "float16":
        return (tokens.astype(np.float16),)
    sizes = np.abs(tokens).astype(np.float32)
    if storage.scales == "channel":
        peaks = sizes.max(axis=0, keepdims=True)
    else:
        peaks = np.maximum.reduceat(sizes, np.arange(0, sizes.shape[1], GROUP), axis=1)
    scales = peaks / np.float32(INT8_MAX)
    steps = np.where(scales > 0, scales, 1)  # a group of zeros stays zeros
    values = np.rint(tokens / _spread(steps, tokens.shape[1], storage))
    return values.clip(-INT8_MAX, INT8_MAX).astype(np.int8), scales


def _spread(scales: NDArray[np.float32], width: int, storage: Storage) -> NDArray[np.float32]:
    """Repeat each group's scale for its channels; the last group may be narrower."""
    if storage.scales == "channel":
        return scales
    return np.repeat(scales, GROUP, axis=-1)[..., :width]


def decode(
    stored: tuple[NDArray[np.generic], ...], storage: Storage, out: NDArray[np.float16]
) -> None:
    """Decode stored arrays into `out`; both may have leading dimensions."""
    if storage.numbers == "float16":
        out[...] = stored[0]
        return
    values, scales = stored
    width = values.shape[-1]
    spread = _spread(cast("NDArray[np.float32]", scales), width, storage)
    np.multiply(values, spread, out=out, casting="unsafe")


def missing(spec: ArraySpec) -> NDArray[np.generic]:
    """Return the chunk of a clip without tokens: NaN, or zeros whose scales are NaN."""
    return np.full(spec.tail, spec.fill, dtype=spec.dtype)
