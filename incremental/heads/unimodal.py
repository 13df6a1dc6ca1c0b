"""Heads for one modality: the modality ablation of the paper (table 3).

Shapes: B clips, T tokens, D width.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from avcil.cache.schema import Encoding
from avcil.incremental.heads.base import Batch, Encoded, Head
from avcil.incremental.heads.layers import (
    AttentionOptions,
    PositionEmbedding,
    SelfBlock,
    make_pool,
    masked_mean,
)


class UnimodalHead(Head):
    """Projection, self-attention and pooling of one modality; subclasses name it."""

    options = AttentionOptions
    modality: ClassVar[Literal["visual", "audio"]]

    def __init__(self, options: AttentionOptions, encoding: Encoding) -> None:
        """Build the head for the tokens of an encoding."""
        super().__init__()
        width = self.width = options.width
        visual = self.modality == "visual"
        tokens = encoding.visual_tokens if visual else encoding.audio_tokens
        channels = encoding.visual_width if visual else encoding.audio_width
        self.projection = nn.Linear(channels, width)
        self.positions = PositionEmbedding(options.positions, tokens, width)
        self.blocks = nn.ModuleList(
            SelfBlock(width, options.heads, options.expansion, options.dropout)
            for _ in range(options.layers)
        )
        self.pool = make_pool(options.pool, width, options.heads)

    def forward(self, batch: Batch, first: int) -> Encoded:
        """Encode the tokens of the one modality."""
        visual = self.modality == "visual"
        tokens = batch.visual if visual else batch.audio
        mask = batch.visual_mask if visual else batch.audio_mask
        tokens = self.positions(self.projection(tokens))
        streams: dict[str, Tensor] = {self.modality: masked_mean(tokens, mask)}
        *inner, last = self.blocks
        layers = []
        for block in inner:
            tokens = block(tokens, mask)
            layers.append(tokens)
        features, tokens = self.pool(last, tokens, mask, first)
        return Encoded(features, tokens, mask, (*layers, features), streams)


class AudioHead(UnimodalHead):
    """Audio tokens alone."""

    modality = "audio"


class VisualHead(UnimodalHead):
    """Visual tokens alone."""

    modality = "visual"
