"""How clips are spread around the means of their classes, and the discriminant that follows.

Shapes: N clips, D width, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LEAST_SHARE = 1e-6
"""Of two clips the estimate is that they need no shrinking, which leaves a singular matrix."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Sums over clips, in float64; those of different classes are added."""

    squares: Tensor
    """[D, D] sum of x x^T, x being a clip minus the mean of its class."""
    fourth: Tensor
    """[] sum of |x|^4."""
    count: Tensor
    """[] number of clips."""

    @classmethod
    def of(cls, apart: Tensor) -> Spread:
        """Return the sums over clips minus the means of their classes, [N, D]."""
        count = torch.tensor(float(len(apart)), dtype=torch.float64, device=apart.device)
        return cls(apart.T @ apart, apart.square().sum(1).square().sum(), count)

    def covariance(self) -> Tensor:
        """Return the covariance within classes, [D, D], shrunk towards a multiple of the identity.

        It is shrunk as far as the estimate of Ledoit and Wolf says, and by `LEAST_SHARE` at least.
        So it has an inverse even with fewer clips than channels.

        Source: Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance
        matrices, Journal of Multivariate Analysis, 2004, section 3.3.
        """
        found = self.squares / self.count
        identity = torch.eye(len(found), dtype=found.dtype, device=found.device)
        target = found.trace() / len(found) * identity
        if not target[0, 0] > 0:  # all clips of each class are equal
            return identity
        distance = (found - target).square().sum()
        # sum over clips of |x x^T - covariance|^2, without a matrix for each clip
        error = (self.fourth - self.count * found.square().sum()) / self.count**2
        share = (error / distance.clamp_min(torch.finfo(found.dtype).tiny)).clamp(LEAST_SHARE, 1)
        return (1 - share) * found + share * target

    def discriminant(self, means: Tensor) -> tuple[Tensor, Tensor]:
        """Return weight [D, C] and bias [C] of the discriminant between class means [C, D]."""
        weight = torch.linalg.solve(self.covariance(), means.T)
        return weight, -0.5 * (weight * means.T).sum(0)
