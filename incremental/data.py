"""Tokens of a task on the training device, and the order in which batches take them.

Shapes: N clips of a set, B of a batch, Tv and Ta tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avcil.cache.reader import FeatureStore
from avcil.incremental.heads.base import Batch
from avcil.incremental.heads.layers import padding_mask
from avcil.incremental.methods.base import Replay


@dataclass(frozen=True, slots=True, eq=False)
class TokenSet:
    """Tokens of N clips, float16 as they lie in the cache."""

    visual: Tensor  # [N, Tv, Dv]
    audio: Tensor  # [N, Ta, Da]
    visual_lengths: Tensor  # [N]
    audio_lengths: Tensor  # [N]
    labels: Tensor  # [N] positions in the learning order
    padded: tuple[bool, bool]
    """Whether any clip is shorter than the nominal length, visual and audio."""

    def __len__(self) -> int:
        """Return N."""
        return len(self.labels)

    @classmethod
    def load(
        cls,
        store: FeatureStore,
        rows: NDArray[np.int64],
        positions: NDArray[np.int64],
        device: torch.device,
    ) -> TokenSet:
        """Read clips from the cache.

        Args:
            store: the cache.
            rows: [N] which clips.
            positions: [classes] position in the learning order of each label.
            device: where the tokens shall lie.
        """
        clips = store.load(rows)
        visual, audio = torch.from_numpy(clips.visual), torch.from_numpy(clips.audio)
        short_visual = bool((clips.visual_lengths < visual.shape[1]).any())
        short_audio = bool((clips.audio_lengths < audio.shape[1]).any())
        return cls(
            visual.to(device),
            audio.to(device),
            torch.from_numpy(clips.visual_lengths).to(device),
            torch.from_numpy(clips.audio_lengths).to(device),
            torch.from_numpy(positions[clips.labels]).to(device),
            (short_visual, short_audio),
        )

    def batch(self, index: Tensor, current: int | None = None) -> Batch:
        """Gather clips; `current` of them, the first, are new ones (default: all)."""
        visual, audio = self.visual[index], self.audio[index]
        return Batch(
            visual,
            audio,
            self._mask(0, self.visual_lengths[index], visual.shape[1]),
            self._mask(1, self.audio_lengths[index], audio.shape[1]),
            self.labels[index],
            len(index) if current is None else current,
        )

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield all clips in order."""
        for index in torch.arange(len(self), device=self.labels.device).split(size):
            yield self.batch(index)

    def _mask(self, modality: int, lengths: Tensor, size: int) -> Tensor | None:
        return padding_mask(lengths, size) if self.padded[modality] else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampler:
    """The batches of one epoch, as positions in a set whose exemplars stand at the end."""

    current: int
    """New clips; with `Replay.ALL` every clip counts as new."""
    exemplars: int
    replay: Replay
    batch_size: int
    exemplar_batch_size: int

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return -(-self._shuffled // self.batch_size)

    @property
    def _paired(self) -> bool:
        return self.replay is Replay.PAIRED and self.exemplars > 0

    @property
    def _shuffled(self) -> int:
        return self.current + (0 if self._paired else self.exemplars)

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, int]]:
        """Yield positions and how many of them, the first, are new clips.

        Every clip comes once an epoch. Paired exemplars are drawn without replacement until all
        had their turn, then anew.
        """
        order = torch.randperm(self._shuffled, generator=generator).split(self.batch_size)
        if not self._paired:
            yield from ((index, len(index)) for index in order)
            return
        draw = min(self.exemplar_batch_size, self.exemplars)
        rounds = -(-len(order) * draw // self.exemplars)
        deck = torch.cat(
            [torch.randperm(self.exemplars, generator=generator) for _ in range(rounds)]
        )
        for step, index in enumerate(order):
            kept = self.current + deck[step * draw : (step + 1) * draw]
            yield torch.cat([index, kept]), len(index)
