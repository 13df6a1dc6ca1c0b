"""Exemplar memory: which clips of earlier tasks are kept.

Shapes: N clips of one class, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True)
class Memory:
    """Rows of the cache that stand for the classes seen, within a budget."""

    budget: int
    """Clips in all, or of each class."""
    per_class: bool = False
    """Whether the budget is that of each class."""
    chosen: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    """Rows by position of the class, best first."""

    @property
    def rows(self) -> NDArray[np.int64]:
        """All exemplars, in the order of the classes."""
        if not self.chosen:
            return np.empty(0, np.int64)
        return np.concatenate([self.chosen[position] for position in sorted(self.chosen)])

    def add(self, ranked: Mapping[int, NDArray[np.int64]]) -> None:
        """Take in the classes of a finished task and share a total budget evenly again.

        The quota is floor(budget / classes seen), or the budget where it is that of each class; a
        class that was here keeps the head of its list.

        Args:
            ranked: training rows of each new class, most wanted first.
        """
        self.chosen.update(ranked)
        quota = self.budget if self.per_class else self.budget // len(self.chosen)
        self.chosen = {position: rows[:quota] for position, rows in self.chosen.items()}


def rank_randomly(
    rows: Mapping[int, NDArray[np.int64]], rng: np.random.Generator
) -> dict[int, NDArray[np.int64]]:
    """Rank the clips of each class by chance."""
    return {position: rng.permutation(rows[position]) for position in sorted(rows)}


def herd(features: NDArray[np.floating]) -> NDArray[np.int64]:
    """Order clips so that every head of the order has a mean close to the mean of all.

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
