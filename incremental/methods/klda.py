"""KLDA: linear discriminant analysis in the space of a kernel, on frozen features, no exemplars.

The published method chooses the kernel's width on validation clips and has 5,000 random features.

Source: Momeni et al., Continual Learning Using a Kernel-Based Method Over Foundation Models,
AAAI 2025.
"""

from __future__ import annotations

from dataclasses import dataclass

from avcil.incremental.heads.closed_form import KernelDiscriminantClassifier
from avcil.incremental.methods.closed_form import ClosedForm


@dataclass(frozen=True, kw_only=True)
class KLDA(ClosedForm):
    """Class means and one covariance of random Fourier features, summed over the tasks."""

    random_features: int = 2048
    """Width of the features; sums and checkpoints take 8 bytes times its square, 34 MB here."""
    gamma: float = 0.5
    """Of the kernel exp(-gamma |x - y|^2); x are two vectors of norm one, side by side."""
    shrinkage: float = 1e-4
    """Share of the identity in the covariance."""

    title = "KLDA"

    def classifier(self, width: int) -> KernelDiscriminantClassifier:
        """Return a discriminant without classes."""
        return KernelDiscriminantClassifier(width, self.random_features, self.gamma, self.shrinkage)
