"""Heads for one modality: the modality ablation of the paper (table 3).

Shapes: B clips, T tokens, D width.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from avcil.incremental.heads.base import Batch, Encoded, Head
from avcil.incremental.heads.layers import (
    AttentionOptions,
    PositionEmbedding,
    SelfBlock,
    make_pool,
    masked_mean,
)


class UnimodalHead(Head):
    """Tokens of one modality through projection, self-attention and pooling."""

    def __init__(
        self, options: AttentionOptions, modality: Literal["visual", "audio"], size: tuple[int, int]
    ) -> None:
        """Build the head for tokens (T, channels) of one modality."""
        super().__init__()
        width = self.width = options.width
        self.modality = modality
        self.projection = nn.Linear(size[1], width)
        self.positions = PositionEmbedding(options.positions, size[0], width)
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
