"""The clips of a task, and how batches are drawn from them.

Shapes: N clips of a set, B of a batch, Tv and Ta tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avcil.cache.reader import FeatureStore
from avcil.cache.schema import Clips, Encoding
from avcil.incremental.data.placement import DeviceTokens, Placement, TokenSource, move
from avcil.incremental.heads.base import Batch
from avcil.incremental.heads.layers import padding_mask

TOKENS_PER_BATCH = 32_000
"""Tokens of both modalities per batch when nothing is trained: more take more memory, and on a CPU
more time as well; with fewer, a GPU would wait for Python."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenSet:
    """N clips, whose tokens may be kept at any location."""

    source: TokenSource
    visual_lengths: Tensor  # [N] on the training device, like those below
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
        placement: Placement,
    ) -> TokenSet:
        """Load clips of a cache.

        Args:
            store: the cache.
            rows: [N] rows of the clips.
            positions: [classes] position in the learning order of each label.
            placement: where the tokens are kept.
        """
        visual, audio = store.lengths["visual"][rows], store.lengths["audio"][rows]
        encoding, labels = store.encoding, positions[store.manifest.labels[rows]]
        padded_visual = bool((visual < encoding.visual_tokens).any())
        padded_audio = bool((audio < encoding.audio_tokens).any())
        return cls(
            source=placement.source(store, rows),
            visual_lengths=torch.from_numpy(visual).to(placement.device),
            audio_lengths=torch.from_numpy(audio).to(placement.device),
            labels=torch.from_numpy(labels).to(placement.device),
            padded=(padded_visual, padded_audio),
        )

    @classmethod
    def of(cls, clips: Clips, encoding: Encoding, device: torch.device) -> TokenSet:
        """Return clips in memory, on a device; their labels are positions."""
        visual, audio = clips.visual_lengths, clips.audio_lengths
        return cls(
            source=DeviceTokens(
                torch.from_numpy(clips.visual).to(device), torch.from_numpy(clips.audio).to(device)
            ),
            visual_lengths=torch.from_numpy(visual).to(device),
            audio_lengths=torch.from_numpy(audio).to(device),
            labels=torch.from_numpy(clips.labels).to(device),
            padded=(
                bool((visual < encoding.visual_tokens).any()),
                bool((audio < encoding.audio_tokens).any()),
            ),
        )

    def draw(self, plan: Sequence[Tensor]) -> Iterator[tuple[Tensor, Batch]]:
        """Yield the positions and the clips of each batch of a plan, both on the device.

        A batch is valid until the next one is requested.

        Args:
            plan: for each batch, [B] positions in the set, int64 on the CPU.
        """
        moved = move(plan, self.labels.device)
        for index, (visual, audio) in zip(moved, self.source.fetch(plan), strict=True):
            visual_mask = audio_mask = None
            if self.padded[0]:
                visual_mask = padding_mask(self.visual_lengths[index], visual.shape[1])
            if self.padded[1]:
                audio_mask = padding_mask(self.audio_lengths[index], audio.shape[1])
            batch = Batch(visual, audio, visual_mask, audio_mask, self.labels[index], len(index))
            yield index, batch

    def batches(self, size: int | None = None, chosen: Tensor | None = None) -> Iterator[Batch]:
        """Yield all clips, or those at the positions `chosen`, in order.

        Args:
            size: clips per batch; None for as many as have `TOKENS_PER_BATCH` tokens.
            chosen: [B] positions in the set, int64 on the CPU.
        """
        positions = torch.arange(len(self)) if chosen is None else chosen
        (visual, _), (audio, _) = self.source.shapes
        size = size or max(1, TOKENS_PER_BATCH // (visual + audio))
        for _, batch in self.draw(positions.split(size)):
            yield batch


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampler:
    """The batches of one epoch, as positions in a set of new clips followed by exemplars."""

    current: int
    """Number of new clips; with `Replay.ALL` every clip counts as new."""
    exemplars: int
    replay: Replay
    batch_size: int
    exemplar_batch_size: int

    @property
    def steps(self) -> int:
        """Number of batches in an epoch."""
        return -(-self._shuffled // self.batch_size)

    @property
    def _paired(self) -> bool:
        return self.replay is Replay.PAIRED and self.exemplars > 0

    @property
    def _shuffled(self) -> int:
        return self.current + (0 if self._paired else self.exemplars)

    @property
    def full_batch(self) -> tuple[int, int]:
        """Number of clips in a full batch, and of new clips among them."""
        new = min(self.batch_size, self._shuffled)
        return new + self._drawn, new

    @property
    def _drawn(self) -> int:
        return min(self.exemplar_batch_size, self.exemplars) if self._paired else 0

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, int]]:
        """Yield the positions of each batch and the number of new clips, which come first.

        Every clip comes once per epoch. Paired exemplars are drawn without replacement until none
        is left, then from all again.
        """
        order = torch.randperm(self._shuffled, generator=generator).split(self.batch_size)
        if not self._paired:
            yield from ((index, len(index)) for index in order)
            return
        count = self._drawn
        rounds = -(-len(order) * count // self.exemplars)
        drawn = torch.cat(
            [torch.randperm(self.exemplars, generator=generator) for _ in range(rounds)]
        )
        for step, index in enumerate(order):
            kept = self.current + drawn[step * count : (step + 1) * count]
            yield torch.cat([index, kept]), len(index)


class Replay(Enum):
    """Which clips of earlier tasks are trained on again, and how they join the batches."""

    NONE = "none"  # none
    MIXED = "mixed"  # exemplars, shuffled with the new clips
    PAIRED = "paired"  # a batch of exemplars joins every batch of new clips
    ALL = "all"  # all clips of earlier tasks, with a new network at each task: the upper bound
