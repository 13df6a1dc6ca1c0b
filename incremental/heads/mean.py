"""The mean of each modality's tokens, without trained weights: for methods in closed form.

Shapes: B clips, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from avcil.cache.schema import Encoding
from avcil.incremental.heads.base import Batch, Encoded, Head, HeadOptions
from avcil.incremental.heads.layers import masked_mean


def unit_means(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the directions of the mean visual and the mean audio token, [B, Dv] and [B, Da]."""
    visual = functional.normalize(masked_mean(batch.visual, batch.visual_mask))
    audio = functional.normalize(masked_mean(batch.audio, batch.audio_mask))
    return visual, audio


class MeanHead(Head):
    """Average each modality over time, scale to norm one, concatenate; `head.width` is ignored."""

    averages = frozenset({"visual", "audio"})

    def __init__(self, options: HeadOptions, encoding: Encoding) -> None:
        """Build the head for the tokens of an encoding."""
        super().__init__()
        self.width = encoding.visual_width + encoding.audio_width

    def forward(self, batch: Batch, first: int) -> Encoded:
        """Join the mean tokens of each clip."""
        visual, audio = unit_means(batch)
        features = torch.cat([visual, audio], dim=1)
        streams = {"visual": visual, "audio": audio}
        return Encoded(features, features[first:, None], None, (features,), streams)
