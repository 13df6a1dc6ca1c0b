"""The clips of a task, and the order in which batches take them.

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
from avcil.incremental.data.placement import Residency, Source, move
from avcil.incremental.heads.base import Batch
from avcil.incremental.heads.layers import padding_mask

SEEN_TOGETHER = 32_000
"""Tokens of both modalities that are looked at together where nothing is trained: more take more
memory, and on a CPU more time as well; fewer would let a GPU wait for Python."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenSet:
    """N clips, their tokens wherever they lie."""

    source: Source
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
        residency: Residency,
    ) -> TokenSet:
        """Take clips of the cache.

        Args:
            store: the cache.
            rows: [N] which clips.
            positions: [classes] position in the learning order of each label.
            residency: where the tokens shall lie.
        """
        visual, audio = store.lengths["visual"][rows], store.lengths["audio"][rows]
        encoding, labels = store.encoding, positions[store.manifest.labels[rows]]
        numbers = [torch.from_numpy(each).to(residency.device) for each in (visual, audio, labels)]
        short_visual = bool((visual < encoding.visual_tokens).any())
        short_audio = bool((audio < encoding.audio_tokens).any())
        return cls(
            residency.source(store, rows),
            numbers[0],
            numbers[1],
            numbers[2],
            (short_visual, short_audio),
        )

    def draw(self, plan: Sequence[Tensor]) -> Iterator[tuple[Tensor, Batch]]:
        """Yield each batch of a plan with its positions, both on the device.

        A batch is valid until the next one is taken.

        Args:
            plan: [B] positions in the set for each batch, int64 on the CPU.
        """
        moved = move(plan, self.labels.device)
        for index, (visual, audio) in zip(moved, self.source.fetch(plan), strict=True):
            yield (
                index,
                Batch(
                    visual,
                    audio,
                    self._mask(0, self.visual_lengths, index, visual.shape[1]),
                    self._mask(1, self.audio_lengths, index, audio.shape[1]),
                    self.labels[index],
                    len(index),
                ),
            )

    def batches(self, size: int | None = None, chosen: Tensor | None = None) -> Iterator[Batch]:
        """Yield all clips, or those at the positions `chosen`, in order.

        Args:
            size: clips in a batch; None for as many as have `SEEN_TOGETHER` tokens.
            chosen: [B] positions in the set, int64 on the CPU.
        """
        positions = torch.arange(len(self)) if chosen is None else chosen
        (visual, _), (audio, _) = self.source.shapes
        for _, batch in self.draw(
            positions.split(size or max(1, SEEN_TOGETHER // (visual + audio)))
        ):
            yield batch

    def _mask(self, modality: int, lengths: Tensor, index: Tensor, size: int) -> Tensor | None:
        return padding_mask(lengths[index], size) if self.padded[modality] else None


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

    @property
    def full(self) -> tuple[int, int]:
        """Clips of a full batch, and how many of them are new."""
        new = min(self.batch_size, self._shuffled)
        return new + self._drawn, new

    @property
    def _drawn(self) -> int:
        return min(self.exemplar_batch_size, self.exemplars) if self._paired else 0

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[Tensor, int]]:
        """Yield positions and how many of them, the first, are new clips.

        Every clip comes once an epoch. Paired exemplars are drawn without replacement until all
        had their turn, then anew.
        """
        order = torch.randperm(self._shuffled, generator=generator).split(self.batch_size)
        if not self._paired:
            yield from ((index, len(index)) for index in order)
            return
        draw = self._drawn
        rounds = -(-len(order) * draw // self.exemplars)
        deck = torch.cat(
            [torch.randperm(self.exemplars, generator=generator) for _ in range(rounds)]
        )
        for step, index in enumerate(order):
            kept = self.current + deck[step * draw : (step + 1) * draw]
            yield torch.cat([index, kept]), len(index)


class Replay(Enum):
    """Which clips of earlier tasks a later task may see, and how they reach its batches."""

    NONE = "none"  # none
    MIXED = "mixed"  # exemplars, shuffled into the training set
    PAIRED = "paired"  # every batch of new clips is joined by a batch of exemplars
    ALL = "all"  # every clip, and a new network at each task: the upper bound
