"""Is a difference between two methods more than chance? And whose is it, features' or method's?"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

RESAMPLES = 10_000
CONFIDENCE = 0.95
ENOUGH_PAIRS = 6
"""Fewest pairs whose signs, all alike, are rarer than 1 in 20 by chance alone: 2 / 2**6 = 0.03."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of paired differences with a bootstrap interval, in the unit of the values."""

    mean: float
    low: float
    high: float
    pairs: int

    @property
    def enough(self) -> bool:
        """False where there are too few pairs for any interval to be trusted."""
        return self.pairs >= ENOUGH_PAIRS

    @property
    def decided(self) -> bool:
        """True where there are enough pairs and the interval leaves zero out."""
        return self.enough and not self.low <= 0 <= self.high


def paired_difference(differences: Sequence[float]) -> Difference:
    """Return the mean difference and its percentile bootstrap interval; seeded, so repeatable.

    Args:
        differences: at least one, each between two runs of the same seed and class order.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.
    """
    import numpy as np

    count = len(differences)
    chosen = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    means = np.sort(np.asarray(differences)[chosen].mean(axis=1)).tolist()
    tail = round(RESAMPLES * (1 - CONFIDENCE) / 2)
    return Difference(statistics.fmean(differences), means[tail], means[-1 - tail], count)


@dataclass(frozen=True, slots=True)
class Shares:
    """Parts of the variation in a full table of methods and caches; they add up to 1."""

    features: float
    methods: float
    interplay: float
    """What neither explains alone: a method that likes certain features."""


def variance_shares(table: Sequence[Sequence[float]]) -> Shares | None:
    """Split the variation of a table [methods][caches] into columns, rows and the rest.

    Returns:
        None where all figures are the same.

    Source: two-way analysis of variance without repetition.
    """
    every = [value for row in table for value in row]
    grand = statistics.fmean(every)
    total = sum((value - grand) ** 2 for value in every)
    if total == 0:
        return None
    columns = list(zip(*table, strict=True))
    features = len(table) * _spread(columns, grand) / total
    methods = len(columns) * _spread(table, grand) / total
    return Shares(features, methods, max(0.0, 1 - features - methods))


def _spread(groups: Sequence[Sequence[float]], grand: float) -> float:
    return sum((statistics.fmean(group) - grand) ** 2 for group in groups)
