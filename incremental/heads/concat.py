"""Naive fusion: the mean of each modality's tokens, joined. The ablation of figure 1.

Shapes: B clips, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from avcil.cache.schema import Encoding
from avcil.incremental.heads.base import Batch, Encoded, Head, HeadOptions
from avcil.incremental.heads.layers import masked_mean


@dataclass(frozen=True, kw_only=True, slots=True)
class ConcatOptions(HeadOptions):
    """Options of naive fusion."""

    fusion: Literal["concat", "sum"] = "concat"


class ConcatHead(Head):
    """Project each modality, average over time, join."""

    options = ConcatOptions
    averages = frozenset({"visual", "audio"})

    def __init__(self, options: ConcatOptions, encoding: Encoding) -> None:
        """Build the head for the tokens of an encoding."""
        super().__init__()
        self.fusion = options.fusion
        self.width = options.width * (2 if options.fusion == "concat" else 1)
        self.visual_projection = nn.Linear(encoding.visual_width, options.width)
        self.audio_projection = nn.Linear(encoding.audio_width, options.width)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, batch: Batch, first: int) -> Encoded:
        """Fuse the tokens of each clip."""
        # Equal to the mean of the projections, with one row per clip instead of T.
        visual = self.visual_projection(masked_mean(batch.visual, batch.visual_mask))
        audio = self.audio_projection(masked_mean(batch.audio, batch.audio_mask))
        joined = visual + audio if self.fusion == "sum" else torch.cat([visual, audio], dim=1)
        features = self.dropout(joined)
        streams = {"visual": visual, "audio": audio}
        return Encoded(features, features[first:, None], None, (features,), streams)
