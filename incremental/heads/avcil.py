"""AV-CIL's own head: audio-guided spatial and temporal attention.

Shapes: B clips, J frames, S spatial tokens a frame, Dv and Da channels, D width.

Source: Pian et al., AV-CIL, ICCV 2023, section 4.3.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from avcil.cache.schema import Encoding
from avcil.incremental.heads.base import Batch, Encoded, Head, HeadOptions
from avcil.incremental.heads.layers import masked_mean

NEVER = -1e9
"""A score that softmax turns into zero; with -inf, a clip of padding alone would give NaN."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AVCILOptions(HeadOptions):
    """Options of AV-CIL's head."""

    width: int = 768


class AVCILHead(Head):
    """Spatial attention within each frame, then temporal attention over frames, by channel."""

    options = AVCILOptions
    averages = frozenset({"audio"})

    def __init__(self, options: AVCILOptions, encoding: Encoding) -> None:
        """Build the head for the tokens of an encoding, J * S of them visual."""
        super().__init__()
        self.width, self.tokens_per_frame = options.width, encoding.tokens_per_frame
        visual, audio = encoding.visual_width, encoding.audio_width
        self.visual_query = nn.Linear(visual, visual)
        self.audio_query = nn.Linear(audio, visual)
        self.visual_projection = nn.Linear(visual, options.width)
        self.audio_projection = nn.Linear(audio, options.width)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, batch: Batch, first: int) -> Encoded:
        """Fuse the tokens of each clip."""
        sound = masked_mean(batch.audio, batch.audio_mask)
        frames = batch.visual.unflatten(1, (-1, self.tokens_per_frame))  # [B, J, S, Dv]
        padding = None  # [B, J], True at frames without a real token
        if batch.visual_mask is not None:
            padding = ~batch.visual_mask.unflatten(1, (-1, self.tokens_per_frame)).any(2)
        spatial, temporal = self._attend(frames, sound, padding)
        seen = ((spatial.exp() * frames).sum(2) * temporal.exp()).sum(1)
        audio, visual = self.audio_projection(sound).relu(), self.visual_projection(seen).relu()
        features = self.dropout(audio + visual)
        if padding is not None:
            spatial = spatial.masked_fill(padding[:, :, None, None], 0.0)
            temporal = temporal.masked_fill(padding[:, :, None], 0.0)
        return Encoded(
            features,
            features[first:, None],
            None,
            (seen, audio, visual),
            {"audio": audio, "visual": visual},
            {"spatial": spatial, "temporal": temporal},
        )

    def _attend(
        self, frames: Tensor, sound: Tensor, padding: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return logarithms of the weights over space [B, J, S, Dv] and time [B, J, Dv]."""
        query = self.audio_query(sound).tanh()[:, None]  # [B, 1, Dv]
        keys = self.visual_query(frames).tanh()
        spatial = (keys * query[:, None]).log_softmax(2)
        scores = (spatial.exp() * keys).sum(2) * query
        if padding is not None:
            scores = scores.masked_fill(padding[:, :, None], NEVER)
        return spatial, scores.log_softmax(1)
