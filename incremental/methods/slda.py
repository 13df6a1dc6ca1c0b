"""Streaming linear discriminant analysis on frozen features, without exemplars.

Source: Hayes and Kanan, Lifelong Machine Learning with Deep Streaming Linear Discriminant Analysis,
CVPR Workshops 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

from avcil.incremental.heads.closed_form import DiscriminantClassifier
from avcil.incremental.methods.closed_form import ClosedForm


@dataclass(frozen=True, kw_only=True)
class SLDA(ClosedForm):
    """Class means, and one covariance to which every task adds its clips."""

    shrinkage: float | None = 1e-4
    """Share of the identity in the covariance; None for the estimate of Ledoit and Wolf (2004),
    which is better where clips are few."""

    title = "SLDA"

    def classifier(self, width: int) -> DiscriminantClassifier:
        """Return a discriminant without classes."""
        return DiscriminantClassifier(width, self.shrinkage)
