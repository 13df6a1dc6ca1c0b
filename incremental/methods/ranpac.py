"""RanPAC: ridge regression on random projections of frozen features, without exemplars.

The published adaptation of the features to the first task is left out: the result is the ridge
regression on all clips at once, whatever the order of tasks.

Source: McDonnell et al., RanPAC, NeurIPS 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

from avcil.incremental.heads.closed_form import RandomRidgeClassifier
from avcil.incremental.methods.closed_form import ClosedForm


@dataclass(frozen=True, kw_only=True)
class RanPAC(ClosedForm):
    """Second moments and class sums of random features, summed over the tasks."""

    random_features: int = 4096
    """Width of the random projection; 10,000 in the original. The second moments take 8 bytes times
    its square in memory and in each task's checkpoint: 134 MB here, 800 MB there."""
    ridge: float | None = None
    """Strength of the penalty; None chooses it at each task, on a fifth of the task's clips."""

    title = "RanPAC"

    def classifier(self, width: int) -> RandomRidgeClassifier:
        """Return a regression without classes."""
        return RandomRidgeClassifier(width, self.random_features, self.ridge)
