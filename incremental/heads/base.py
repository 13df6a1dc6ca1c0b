"""Inputs and outputs of every head.

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
    """Output of a head for a batch, with everything that a method may distil."""

    features: Tensor
    """[B, D], input of the classifier."""
    tokens: Tensor
    """[K, T, D], the last layer before pooling, for the last K clips: those requested."""
    mask: Tensor | None
    """[B, T] True at real tokens; None without padding."""
    layers: tuple[Tensor, ...]
    """Outputs of the layers on the way to the features, [B, T, D] or [B, D], whose changes AFC
    penalizes."""
    streams: Mapping[str, Tensor] = field(default_factory=dict)
    """Pooled features of each modality before fusion, [B, D] each."""
    attention: Mapping[str, Tensor] = field(default_factory=dict)
    """Logarithms of attention weights by name, [B, ...], for methods that distil them; zero where
    there is only padding."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Output of the whole network for a batch."""

    logits: Tensor
    """[B, C], classes in learning order."""
    encoded: Encoded
    notes: Mapping[str, Tensor] = field(default_factory=dict)
    """What `Method.after_task` returned for the last task that this network finished."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadOptions:
    """Options of every head."""

    width: int = 512
    """D."""
    input_norm: Literal["layernorm", "standardize", "l2", "none"] = "layernorm"
    """How tokens are scaled before projection; `standardize` uses the mean and standard deviation
    of each channel over the training clips of the first task: over their tokens, or over the mean
    tokens of clips where the head sees nothing else (`Head.averages`)."""
    dropout: float = 0.0
    classifier: Literal["linear", "cosine", "proxy"] = "linear"
    """Ignored by methods that have a classifier of their own."""


class Head(nn.Module, ABC):
    """Trainable layers between cached tokens and the classifier.

    A subclass is built as `Class(options, encoding)`: with an instance of its class `options`, and
    the `avcil.cache.schema.Encoding` that gives numbers and channels of the tokens.
    """

    options: ClassVar[type[HeadOptions]] = HeadOptions
    """The class of its options."""
    averages: ClassVar[frozenset[str]] = frozenset()
    """Modalities, `visual` and `audio`, of which the head uses the mean over the tokens alone."""
    width: int
    """D, channels of `Encoded.features`."""

    @abstractmethod
    def forward(self, batch: Batch, first: int) -> Encoded:
        """Fuse the tokens of each clip, already scaled by the input norm.

        Args:
            batch: the clips.
            first: return `Encoded.tokens` for clips [first:] only.
        """

    def attention_weights(self, batch: Batch) -> Tensor | None:
        """Return the attention of each visual token to each audio token, [B, Tv, Ta].

        Rows add up to one. None for heads in which audio does not guide video.
        """
        return None
