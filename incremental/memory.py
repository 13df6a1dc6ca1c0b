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
    """Rows of the cache that stand for the classes seen, within a budget for all of them."""

    budget: int
    """Clips in all."""
    chosen: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    """Rows by position of the class, best first."""

    @property
    def rows(self) -> NDArray[np.int64]:
        """All exemplars, in the order of the classes."""
        if not self.chosen:
            return np.empty(0, np.int64)
        return np.concatenate([self.chosen[position] for position in sorted(self.chosen)])

    def add(self, ranked: Mapping[int, NDArray[np.int64]]) -> None:
        """Take in the classes of a finished task and share the budget evenly again.

        The quota is floor(budget / classes seen); a class that was here keeps the head of its list.

        Args:
            ranked: training rows of each new class, most wanted first.
        """
        self.chosen.update(ranked)
        quota = self.budget // len(self.chosen)
        self.chosen = {position: rows[:quota] for position, rows in self.chosen.items()}


def rank_randomly(
    rows: Mapping[int, NDArray[np.int64]], rng: np.random.Generator
) -> dict[int, NDArray[np.int64]]:
    """Rank the clips of each class by chance."""
    return {position: rng.permutation(rows[position]) for position in sorted(rows)}
