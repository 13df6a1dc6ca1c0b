"""Exemplar memory: the clips of earlier tasks that are kept for replay.

Shapes: N clips of one class, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from avcil.cache.schema import Manifest


@dataclass(slots=True)
class Memory:
    """Exemplars of the classes seen so far, as rows of the cache, within a budget."""

    budget: int
    """Number of clips, in total or per class."""
    per_class: bool = False
    """Whether the budget is per class."""
    chosen: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    """Rows by position of the class, best first."""

    @property
    def rows(self) -> NDArray[np.int64]:
        """All exemplars, in the order of the classes."""
        if not self.chosen:
            return np.empty(0, np.int64)
        return np.concatenate([self.chosen[position] for position in sorted(self.chosen)])

    def add(self, ranked: Mapping[int, NDArray[np.int64]]) -> None:
        """Add the classes of a finished task; every class keeps the first clips of its ranking.

        The quota of a class is `budget`, if that is per class, else floor(budget / classes seen).

        Args:
            ranked: training rows of each new class, best first.
        """
        self.chosen.update(ranked)
        quota = self.budget if self.per_class else self.budget // len(self.chosen)
        self.chosen = {position: rows[:quota] for position, rows in self.chosen.items()}

    def restore(
        self, ids: Sequence[str], manifest: Manifest, positions: NDArray[np.int64], seen: range
    ) -> None:
        """Restore the memory of a run that is resumed.

        Args:
            ids: clips in memory, in the order of `rows`.
            manifest: the clips of the cache.
            positions: position in the learning order of each label.
            seen: classes seen. Those without an exemplar count too: all share the budget.
        """
        row_of = {clip: row for row, clip in enumerate(manifest.ids)}
        rows = np.array([row_of[clip] for clip in ids], np.int64)
        classes = positions[manifest.labels[rows]]
        self.chosen = {position: rows[classes == position] for position in seen}


def rank(
    rows: Mapping[int, NDArray[np.int64]],
    selection: Literal["random", "herding"],
    features: Callable[[int], NDArray[np.floating]],
    seed: int,
) -> dict[int, NDArray[np.int64]]:
    """Rank the clips of each class, best first.

    Args:
        rows: [N] rows of each class, by position.
        selection: how exemplars are chosen.
        features: returns features of norm one, [N, D], of a class; for herding.
        seed: of random ranks.
    """
    if selection == "herding":
        return {position: each[herd(features(position))] for position, each in rows.items()}
    return rank_randomly(rows, np.random.default_rng(seed))


def rank_randomly(
    rows: Mapping[int, NDArray[np.int64]], rng: np.random.Generator
) -> dict[int, NDArray[np.int64]]:
    """Shuffle the clips of each class."""
    return {position: rng.permutation(rows[position]) for position in sorted(rows)}


def herd(features: NDArray[np.floating]) -> NDArray[np.int64]:
    """Order clips such that the mean of the first k is close to the mean of all, for every k.

    Args:
        features: [N, D] of one class, of norm one.

    Returns:
        [N] positions, each once, best first.

    Source: Rebuffi et al., iCaRL, CVPR 2017, algorithm 4.
    """
    points = features.astype(np.float64)
    target, total = points.mean(0), np.zeros(points.shape[1])
    free = np.ones(len(points), dtype=bool)
    order = np.empty(len(points), np.int64)
    for count in range(1, len(points) + 1):
        distance = np.linalg.norm(target - (total + points) / count, axis=1)
        best = int(np.where(free, distance, np.inf).argmin())
        order[count - 1], free[best] = best, False
        total += points[best]
    return order
