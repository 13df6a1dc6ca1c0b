"""The interface of every encoder, and what it is given.

Shapes: F distinct frames of H x W pixels; Tv visual tokens; S samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avcil.cache.schema import Encoding, Tokens


@dataclass(frozen=True, slots=True, eq=False)
class Media:
    """One decoded clip, cut to its nominal length."""

    frames: NDArray[np.uint8]
    """[F, H, W, 3] RGB, each distinct frame once, at the size of the file."""
    frame_index: NDArray[np.int64]
    """[Tv] position in `frames` of each visual token, in time order."""
    waveform: NDArray[np.float32]
    """[S] mono, at the encoder's sample rate."""


class Encoder(ABC):
    """Frozen networks that turn a decoded clip into visual and audio tokens.

    Laws that the contract tests hold every encoder to: the same clip gives the same tokens,
    whichever clips are encoded beside it; tokens have the widths of `encoding`; two encoders with
    the same fingerprint give the same tokens.
    """

    @property
    @abstractmethod
    def sample_rate(self) -> int:
        """Samples a second that `Media.waveform` must have."""

    @abstractmethod
    def encoding(self, *, seconds: float, visual_rate_hz: float) -> Encoding:
        """Describe the tokens of clips of this nominal length and rate of frames."""

    @abstractmethod
    def encode(self, clips: Sequence[Media]) -> list[Tokens]:
        """Return the tokens of each clip, in order."""
