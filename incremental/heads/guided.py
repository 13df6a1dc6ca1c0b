"""Audio-guided video attention, the head of the paper.

Visual tokens attend to audio tokens, then to each other.

Shapes: B clips, Tv visual and Ta audio tokens, Dv and Da channels, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from avcil.cache.schema import Encoding
from avcil.incremental.heads.base import Batch, Encoded, Head
from avcil.incremental.heads.layers import (
    Attention,
    AttentionOptions,
    FeedForward,
    Gate,
    PositionEmbedding,
    SelfBlock,
    make_pool,
    masked_mean,
)
from avcil.incremental.options import later


@dataclass(frozen=True, kw_only=True, slots=True)
class GuidedOptions(AttentionOptions):
    """Options of the guided head."""

    gate: Gate = "none"
    """`tanh` scales what audio adds by a learned gate, initially zero (Jeong et al., AVIGATE,
    CVPR 2025)."""
    audio_norm: bool = True
    """LayerNorm on the audio tokens that are attended to."""
    keep_audio: bool = field(default=False, metadata=later(False))
    """Join the mean of the projected audio tokens to the pooled visual ones: what is heard reaches
    the classifier directly, not only through attention. Not part of the paper."""


class CrossBlock(nn.Module):
    """Let audio guide video: equation (1) of the paper.

    Z = MHA(LN(Fv), LN(Fa)) + Fv;  Fbar = FFN(LN(Z)) + Z.
    """

    def __init__(self, options: GuidedOptions) -> None:
        super().__init__()
        width = options.width
        self.visual_norm = nn.LayerNorm(width)
        self.audio_norm = nn.LayerNorm(width) if options.audio_norm else nn.Identity()
        self.attention = Attention(width, options.heads, options.dropout)
        self.forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, options.expansion, options.dropout)
        self.gates = nn.Parameter(torch.zeros(2)) if options.gate == "tanh" else None

    def forward(self, visual: Tensor, audio: Tensor, audio_mask: Tensor | None) -> Tensor:
        """Update visual tokens [B, Tv, D] by attention to audio tokens [B, Ta, D]."""
        attended = self.attention(self.visual_norm(visual), self.audio_norm(audio), audio_mask)
        visual = visual + self._gated(0, attended)
        return visual + self._gated(1, self.feed_forward(self.forward_norm(visual)))

    def attention_weights(self, visual: Tensor, audio: Tensor, audio_mask: Tensor | None) -> Tensor:
        """Return the attention of each visual token to each audio token, [B, Tv, Ta]."""
        return self.attention.weights(self.visual_norm(visual), self.audio_norm(audio), audio_mask)

    def _gated(self, index: int, update: Tensor) -> Tensor:
        return update if self.gates is None else self.gates.tanh()[index] * update


class GuidedHead(Head):
    """Visual tokens guided by audio tokens."""

    options = GuidedOptions

    def __init__(self, options: GuidedOptions, encoding: Encoding) -> None:
        """Build the head for the tokens of an encoding."""
        super().__init__()
        width = options.width
        self.keep_audio, self.width = options.keep_audio, width * (2 if options.keep_audio else 1)
        self.visual_projection = nn.Linear(encoding.visual_width, width)
        self.audio_projection = nn.Linear(encoding.audio_width, width)
        self.visual_positions = PositionEmbedding(options.positions, encoding.visual_tokens, width)
        self.audio_positions = PositionEmbedding(options.positions, encoding.audio_tokens, width)
        self.cross = nn.ModuleList(CrossBlock(options) for _ in range(options.layers))
        self.self = nn.ModuleList(
            SelfBlock(width, options.heads, options.expansion, options.dropout)
            for _ in range(options.layers)
        )
        self.pool = make_pool(options.pool, width, options.heads)

    def forward(self, batch: Batch, first: int) -> Encoded:
        """Fuse the tokens of each clip."""
        tokens, audio = self._project(batch)
        streams = {
            "visual": masked_mean(tokens, batch.visual_mask),
            "audio": masked_mean(audio, batch.audio_mask),
        }
        layers = []
        for cross, attend in zip(self.cross[:-1], self.self[:-1], strict=True):
            guided = cross(tokens, audio, batch.audio_mask)
            tokens = attend(guided, batch.visual_mask)
            layers += [guided, tokens]
        guided = self.cross[-1](tokens, audio, batch.audio_mask)
        features, tokens = self.pool(self.self[-1], guided, batch.visual_mask, first)
        if self.keep_audio:
            features = torch.cat([features, streams["audio"].to(features.dtype)], dim=1)
        return Encoded(features, tokens, batch.visual_mask, (*layers, guided, features), streams)

    def attention_weights(self, batch: Batch) -> Tensor:
        """Return the attention of visual to audio tokens in the first layer, [B, Tv, Ta]."""
        visual, audio = self._project(batch)
        first = self.cross[0]
        assert isinstance(first, CrossBlock)
        return first.attention_weights(visual, audio, batch.audio_mask)

    def _project(self, batch: Batch) -> tuple[Tensor, Tensor]:
        visual = self.visual_positions(self.visual_projection(batch.visual))
        audio = self.audio_positions(self.audio_projection(batch.audio))
        return visual, audio
