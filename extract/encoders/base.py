"""The interface of every encoder, and what it is given.

Shapes: F distinct frames of H x W pixels; Tv visual tokens; S samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from avcil.cache.schema import Encoding, Tokens
from avcil.extract.errors import EncoderError

Precision = Literal["auto", "fp32", "bf16", "fp16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True, slots=True)
class Resizing:
    """The size of the frames that an encoder takes, and how they come to it."""

    height: int
    width: int
    mode: Literal["bicubic", "bilinear"]


@dataclass(frozen=True, slots=True, eq=False)
class Media:
    """One decoded clip, cut to its nominal length."""

    frames: NDArray[np.uint8]
    """[F, H, W, 3] RGB, each distinct frame once, at the size that the encoder takes."""
    frame_index: NDArray[np.int64]
    """[Tv] position in `frames` of each visual token, in time order."""
    waveform: NDArray[np.float32]
    """[S] mono, at the encoder's sample rate."""
    note: str = ""
    """What one must know about the clip, such as that it has no sound; kept with its tokens."""


class Encoder(ABC):
    """Frozen networks that turn a decoded clip into visual and audio tokens.

    Laws that the contract tests hold every encoder to: the same clip gives the same tokens,
    whichever clips are encoded beside it; tokens have the widths of `encoding`; two encoders with
    the same fingerprint give the same tokens. Where frames of several clips share a batch (on a
    GPU), the same means: up to the rounding of the precision.
    """

    @property
    @abstractmethod
    def sample_rate(self) -> int:
        """Samples a second that `Media.waveform` must have."""

    @property
    @abstractmethod
    def resizing(self) -> Resizing | None:
        """Size that `Media.frames` must have, and how to resize them; None for any size."""

    @abstractmethod
    def encoding(self, *, seconds: float, visual_rate_hz: float) -> Encoding:
        """Describe the tokens of clips of this nominal length and rate of frames."""

    @abstractmethod
    def encode(self, clips: Sequence[Media]) -> list[Tokens]:
        """Return the tokens of each clip, in order."""

    def stream(self, clips: Iterable[Media]) -> Iterator[Tokens]:
        """Give the tokens of each clip, in order, taking clips as they are needed.

        An encoder that works on several clips at once overrides this; it lets go of a clip's
        arrays when it has given the tokens, or sooner.
        """
        for clip in clips:
            yield from self.encode([clip])

    def set_precision(self, precision: Precision) -> None:
        """Choose how to compute, before the first clip.

        Raises:
            EncoderError: this encoder has no such choice.
        """
        if precision not in ("auto", "fp32"):
            raise EncoderError(f"this encoder computes in fp32 alone, not in {precision}")
