"""What every head takes and gives.

Shapes: B clips, T tokens, Dv and Da channels of visual and audio tokens, D width of the head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Batch:
    """Clips on the training device."""

    visual: Tensor  # [B, Tv, Dv]
    audio: Tensor  # [B, Ta, Da]
    visual_mask: Tensor | None
    """[B, Tv] True at real tokens; None where no clip of the set is padded."""
    audio_mask: Tensor | None  # [B, Ta]
    labels: Tensor  # [B] positions in the learning order
    current: int
    """With paired replay, clips [:current] are new ones and the rest exemplars; else B."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a head makes of a batch, with all that a method may want to distil."""

    features: Tensor
    """[B, D], what the classifier sees."""
    tokens: Tensor
    """[K, T, D], the last layer before pooling, of the last K clips: those that were asked for."""
    mask: Tensor | None
    """[B, T] True at real tokens; None where there is no padding."""
    layers: tuple[Tensor, ...]
    """Outputs of the layers on the way to the features, [B, T, D] or [B, D]; last `features`."""
    streams: Mapping[str, Tensor] = field(default_factory=dict)
    """Pooled features of each modality before fusion, [B, D] each."""
    attention: Mapping[str, Tensor] = field(default_factory=dict)
    """Logarithms of attention weights by name, [B, ...], where the head has any to compare; zero
    where there is nothing but padding."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the whole network says of a batch."""

    logits: Tensor
    """[B, C], a class at each position of the learning order seen so far."""
    encoded: Encoded
    notes: Mapping[str, Tensor] = field(default_factory=dict)
    """What the method noted after the last task that this network finished."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadOptions:
    """Options of every head."""

    width: int = 512
    """D."""
    input_norm: Literal["layernorm", "standardize", "l2", "none"] = "layernorm"
    """How tokens are scaled before projection; `standardize` takes each channel's mean and
    deviation from the training clips of the first task and keeps them."""
    dropout: float = 0.0
    classifier: Literal["linear", "cosine", "proxy"] = "linear"
    """For methods that do not bring their own."""


class Head(nn.Module, ABC):
    """Trainable layers between cached tokens and the classifier.

    A subclass is built as `Class(options, encoding)`: with an instance of its class `options`, and
    the `avcil.cache.schema.Encoding` that gives numbers and channels of the tokens.
    """

    options: ClassVar[type[HeadOptions]] = HeadOptions
    """The class of its options."""
    width: int
    """D, channels of `Encoded.features`."""

    @abstractmethod
    def forward(self, batch: Batch, first: int) -> Encoded:
        """Fuse the tokens of each clip, already scaled by the input norm.

        Args:
            batch: the clips.
            first: of `Encoded.tokens`, those of clips [first:] are wanted and no others.
        """

    def guidance(self, batch: Batch) -> Tensor | None:
        """Return how much each visual token listens to each audio token, [B, Tv, Ta].

        Rows add up to one. None from heads in which sound does not guide sight.
        """
        return None
