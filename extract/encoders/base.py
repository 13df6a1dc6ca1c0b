"""The interface of every encoder, and its input.

Shapes: F distinct frames of H x W pixels; Tv visual tokens; S samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from avcil.cache.schema import Encoding, Tokens
from avcil.extract.errors import EncoderError

Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True, slots=True)
class Resizing:
    """The size of the frames that an encoder takes, and how to resize them."""

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
    """Something to know about the clip, such as that it has no sound; kept with its tokens."""


class Encoder(ABC):
    """Frozen networks that turn a decoded clip into visual and audio tokens.

    The contract tests check for every encoder: the same clip gives the same tokens, whichever clips
    are encoded with it; tokens have the widths of `encoding`; two encoders with the same
    fingerprint give the same tokens. Where frames of several clips share a batch (on a GPU), tokens
    are the same up to the rounding of the precision.
    """

    precisions: tuple[Precision, ...] = ("fp32",)
    """Precisions that the encoder can compute in; the first is the one that `auto` chooses."""
    precision: Precision = "fp32"
    """The precision that `set_precision` chose."""
    started: bool = False
    """Set by an encoder with several precisions when it encodes its first clip."""

    @property
    @abstractmethod
    def sample_rate(self) -> int:
        """Samples per second that `Media.waveform` must have."""

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

    @final
    def set_precision(self, precision: Precision) -> None:
        """Choose the precision, before the first clip.

        Raises:
            EncoderError: the encoder cannot compute in this precision.
            RuntimeError: clips were encoded in another one.
        """
        chosen = self.precisions[0] if precision == "auto" else precision
        if chosen not in self.precisions:
            known = " or ".join(self.precisions)
            raise EncoderError(f"this encoder computes in {known} only, not in {precision}")
        if self.started and chosen != self.precision:
            raise RuntimeError("the precision must be chosen before the first clip")
        self.precision = chosen


class StreamingEncoder(Encoder):
    """An encoder that works on several clips at once."""

    @abstractmethod
    def stream(self, clips: Iterable[Media]) -> Iterator[Tokens]:
        """Yield the tokens of each clip, in order, and take clips as they are needed.

        References to a clip's arrays are dropped when its tokens are yielded, or sooner.
        """

    @final
    def encode(self, clips: Sequence[Media]) -> list[Tokens]:
        """Return the tokens of each clip, in order."""
        return list(self.stream(clips))
