"""Data types for the content of a cache.

Shapes: N clips of the data set; Tv, Ta tokens per clip and Dv, Da channels, visual and audio.
"""

from __future__ import annotations

import operator
from collections import Counter
from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from avcil.cache.errors import *  # noqa: F403  in version 0.1.0 they were defined here
from avcil.cache.names import check_names

FORMAT = 1

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

Numbers = Literal["float16", "int8"]
Scales = Literal["group", "channel"]
Compression = Literal["none", "zstd"]
_CHOICES = {"numbers": Numbers, "scales": Scales, "compression": Compression}


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """The encoder of the tokens, its settings, and their shape. A cache never mixes two."""

    encoder: str
    fingerprint: str
    """Hash of the weights used and of every preprocessing setting."""
    precision: str = "fp32"
    """Precision in which the tokens were computed, before they were rounded for storage."""
    random_weights: bool = False
    """Whether the encoder was never trained: reports must say so next to every result."""
    visual_tokens: int
    """Tv: visual tokens of a clip of nominal length."""
    visual_width: int
    audio_tokens: int
    """Ta: audio tokens of a clip of nominal length."""
    audio_width: int
    tokens_per_frame: int = 1
    """Visual tokens of one frame; Tv is a multiple of it."""
    visual_rate_hz: float
    """Encoded video frames per second."""
    audio_rate_hz: float
    seconds: float
    """Nominal length of a clip, in seconds."""
    unit_norm: tuple[str, ...] = ()
    """Modalities whose tokens are guaranteed to have norm 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Storage:
    """How numbers are stored on disk."""

    numbers: Numbers = "float16"
    """int8 halves the size, at 30 to 80 times the rounding error of float16."""
    scales: Scales = "channel"
    """Which values share an int8 scale: one channel of a clip, or 64 channels of a token."""
    compression: Compression = "none"
    """zstd makes float16 tokens 6 to 9 % smaller, and reading many times slower."""

    def __post_init__(self) -> None:
        """Refuse unknown choices."""
        for field in fields(self):
            value, known = getattr(self, field.name), get_args(_CHOICES[field.name])
            if value not in known:
                raise ValueError(
                    f"unknown {field.name} {value!r}; choose one of {', '.join(known)}"
                )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Manifest:
    """The clips of a data set, one row each, sorted by split, class and id.

    Since rows are sorted, the training clips of one task are one contiguous range.
    """

    dataset: str
    classes: tuple[str, ...]
    """Class names; a label is a position in this list."""
    ids: tuple[str, ...]  # [N]
    splits: tuple[Split, ...]  # [N]
    labels: NDArray[np.int64]  # [N]

    def __post_init__(self) -> None:
        """Refuse unusable names, and rows that are unsorted, repeated or out of range."""
        check_names(self.dataset, self.classes)
        if not len(self.ids) == len(self.splits) == len(self.labels):
            raise ValueError("there must be as many ids as splits and labels")
        # column by column, so that a cache of a million clips opens in seconds
        splits = np.fromiter(map(SPLITS.index, self.splits), np.int64, len(self))
        ascending = np.fromiter(map(operator.le, self.ids, self.ids[1:]), bool)
        for column in (self.labels, splits):
            step = np.diff(column)
            ascending = (step > 0) | ((step == 0) & ascending)
        if not ascending.all():
            raise ValueError("rows must be sorted by split, class and id: use Manifest.of()")
        if len(set(self.ids)) < len(self):
            twice = [clip for clip, count in Counter(self.ids).items() if count > 1]
            raise ValueError(
                f"{len(twice)} clip ids occur more than once, for example {twice[0]!r}"
            )
        if ((self.labels < 0) | (self.labels >= len(self.classes))).any():
            raise ValueError(f"labels must lie in 0..{len(self.classes) - 1}")

    def __len__(self) -> int:
        """Return N, the number of clips."""
        return len(self.ids)

    @classmethod
    def of(
        cls, dataset: str, classes: tuple[str, ...], clips: list[tuple[Split, int, str]]
    ) -> Manifest:
        """Sort clips, each (split, label, id), into a manifest."""
        ordered = sorted(clips, key=lambda clip: (SPLITS.index(clip[0]), clip[1], clip[2]))
        return cls(
            dataset=dataset,
            classes=classes,
            ids=tuple(clip for _, _, clip in ordered),
            splits=tuple(split for split, _, _ in ordered),
            labels=np.array([label for _, label, _ in ordered], dtype=np.int64),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """The output of an encoder for one clip; t <= Tv and s <= Ta."""

    visual: NDArray[np.floating]  # [t, Dv]
    audio: NDArray[np.floating]  # [s, Da]
    note: str = ""
    """A remark about the tokens, for example that the clip had no sound."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a clip has no tokens."""

    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Clips:
    """Tokens of B clips, padded with zeros to the nominal length."""

    visual: NDArray[np.float16]  # [B, Tv, Dv]
    audio: NDArray[np.float16]  # [B, Ta, Da]
    visual_lengths: NDArray[np.int64]  # [B]
    audio_lengths: NDArray[np.int64]  # [B]
    labels: NDArray[np.int64]  # [B]
