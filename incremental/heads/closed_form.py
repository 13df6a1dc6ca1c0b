"""Classifiers in closed form, from sums over clips that do not depend on the order of tasks.

Shapes: B clips, D width, M random features, C classes seen so far.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn import functional

from avcil.incremental.heads.classifiers import Classifier
from avcil.incremental.heads.spread import Spread


class MomentClassifier(Classifier):
    """Accumulates second moments and class sums in float64, from which weights are solved."""

    second: Tensor  # [M, M] sum of x x^T
    sums: Tensor  # [M, C] sum of x of each class
    counts: Tensor  # [C] clips of each class
    weight: Tensor  # [M, C]
    bias: Tensor  # [C]

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("second", torch.zeros(width, width, dtype=torch.float64))
        for name in ("sums", "weight"):
            self.register_buffer(name, torch.zeros(width, 0, dtype=torch.float64))
        for name in ("counts", "bias"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.float64))

    @property
    def classes(self) -> int:
        """C, the number of classes."""
        return len(self.counts)

    def grow(self, count: int) -> None:
        """Add classes without clips."""
        for name in ("sums", "weight", "counts", "bias"):
            setattr(self, name, functional.pad(getattr(self, name), (0, count)))

    def absorb(self, features: Tensor, labels: Tensor) -> None:
        """Add clips, features [B, D] and labels [B]."""
        expanded = self.expand(features)
        classes = functional.one_hot(labels, self.classes).double()
        self.second += expanded.T @ expanded
        self.sums += expanded.T @ classes
        self.counts += classes.sum(0)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits [B, C] of features [B, D]."""
        return self.expand(features) @ self.weight + self.bias

    @abstractmethod
    def expand(self, features: Tensor) -> Tensor:
        """Return the features whose moments are accumulated, [B, M] in float64."""

    @abstractmethod
    def tune(self, features: Tensor, labels: Tensor) -> None:
        """Choose what must be chosen on the clips of a task, features [N, D] and labels [N]."""

    @abstractmethod
    def solve(self) -> None:
        """Set weight and bias from the accumulated sums."""


class DiscriminantClassifier(MomentClassifier):
    """Linear discriminant analysis with one covariance for all classes.

    Source: Hayes and Kanan, Deep SLDA, CVPR Workshops 2020, equations 1 to 4.
    """

    fourth: Tensor  # [] sum of |x - mean of its class|^4

    def __init__(self, width: int, shrinkage: float | None) -> None:
        """Build a discriminant without classes.

        Args:
            width: D.
            shrinkage: share of the identity in the covariance; None for the estimate of Ledoit and
                Wolf, and a multiple of the identity as large as the covariance.
        """
        super().__init__(width)
        self.shrinkage = shrinkage
        if shrinkage is None:
            self.register_buffer("fourth", torch.zeros((), dtype=torch.float64))

    def expand(self, features: Tensor) -> Tensor:
        """Return the features themselves."""
        return features.double()

    def tune(self, features: Tensor, labels: Tensor) -> None:
        """Add the clips of the task, all of their classes, to what the estimate needs."""
        if self.shrinkage is None:
            apart = features.double() - (self.sums / self.counts.clamp_min(1)).T[labels]
            self.fourth += apart.square().sum(1).square().sum()

    def solve(self) -> None:
        """Set the weights of the discriminant."""
        if self.shrinkage is not None:
            self.weight, self.bias = solve_discriminant(self, self.shrinkage)
            return
        means = self.sums / self.counts.clamp_min(1)
        squares = self.second - (means * self.counts) @ means.T
        spread = Spread(squares, self.fourth, self.counts.sum())
        self.weight, self.bias = spread.discriminant(means.T)


class KernelDiscriminantClassifier(MomentClassifier):
    """Linear discriminant analysis on random Fourier features of a Gaussian kernel.

    Source: Momeni et al., Continual Learning Using a Kernel-Based Method Over Foundation Models
    (KLDA), AAAI 2025; the features: Rahimi and Recht, NeurIPS 2007.
    """

    projection: Tensor  # [D, M]
    phase: Tensor  # [M]

    def __init__(self, width: int, random_features: int, gamma: float, shrinkage: float) -> None:
        """Build a discriminant without classes.

        Args:
            width: D.
            random_features: M.
            gamma: of the kernel exp(-gamma |x - y|^2).
            shrinkage: share of the identity in the covariance.
        """
        super().__init__(random_features)
        self.shrinkage = shrinkage
        projection = math.sqrt(2 * gamma) * torch.randn(width, random_features)
        self.register_buffer("projection", projection.double())
        self.register_buffer("phase", 2 * math.pi * torch.rand(random_features).double())

    def expand(self, features: Tensor) -> Tensor:
        """Return features whose products approximate the kernel."""
        waves = (features.double() @ self.projection + self.phase).cos()
        return math.sqrt(2 / len(self.phase)) * waves

    def tune(self, features: Tensor, labels: Tensor) -> None:
        """Choose nothing: kernel and shrinkage are fixed."""

    def solve(self) -> None:
        """Set the weights of the discriminant."""
        self.weight, self.bias = solve_discriminant(self, self.shrinkage)


def solve_discriminant(moments: MomentClassifier, shrinkage: float) -> tuple[Tensor, Tensor]:
    """Return w_c = P mean_c, [M, C], and b_c = -w_c mean_c / 2, P the inverse of the covariance."""
    means = moments.sums / moments.counts.clamp_min(1)
    # sum (x - mean)(x - mean)^T within classes = sum x x^T - sum_c n_c mean_c mean_c^T
    within = (moments.second - (means * moments.counts) @ means.T) / moments.counts.sum()
    identity = torch.eye(len(within), dtype=within.dtype, device=within.device)
    covariance = (1 - shrinkage) * within + shrinkage * identity
    weight = torch.linalg.solve(covariance, means)
    return weight, -0.5 * (weight * means).sum(0)


class PrototypeClassifier(MomentClassifier):
    """The class whose mean has the largest cosine with the clip.

    Source: Zhou et al., Revisiting Class-Incremental Learning with Pre-Trained Models (SimpleCIL),
    IJCV 2024, equation 3.
    """

    def expand(self, features: Tensor) -> Tensor:
        """Return the features themselves."""
        return features.double()

    def tune(self, features: Tensor, labels: Tensor) -> None:
        """Choose nothing."""

    def solve(self) -> None:
        """Set the weights to the directions of the class means."""
        self.weight = functional.normalize(self.sums, dim=0)

    def forward(self, features: Tensor) -> Tensor:
        """Return cosines [B, C] of features [B, D]."""
        return functional.normalize(features.double()) @ self.weight


class RandomRidgeClassifier(MomentClassifier):
    """Ridge regression to one-hot labels on random ReLU features.

    Source: McDonnell et al., RanPAC, NeurIPS 2023, equations 3 to 6.
    """

    projection: Tensor  # [D, M]
    RIDGES = tuple(10.0**power for power in range(-8, 9))
    """What `tune` chooses from, as the released code does."""

    def __init__(self, width: int, random_features: int, ridge: float | None) -> None:
        """Build a regression without classes.

        Args:
            width: D.
            random_features: M.
            ridge: strength of the penalty; None to let `tune` choose it.
        """
        super().__init__(random_features)
        self.fixed, self.ridge = ridge is not None, 1.0 if ridge is None else ridge
        self.register_buffer("projection", torch.randn(width, random_features).double())

    def expand(self, features: Tensor) -> Tensor:
        """Return ReLU of the random projection."""
        return (features.double() @ self.projection).relu()

    def tune(self, features: Tensor, labels: Tensor) -> None:
        """Choose the ridge whose weights predict every fifth clip best, in mean squared error.

        The other clips of the task are fitted in the dual form, [N, N], whose eigenvectors serve
        every ridge. A task of fewer than five clips takes 1.
        """
        if self.fixed:
            return
        self.ridge = 1.0
        held_out = torch.arange(len(labels), device=labels.device) % 5 == 4
        if not held_out.any():
            return
        expanded = self.expand(features)
        targets = functional.one_hot(labels, self.classes).double()
        fitted, left = expanded[~held_out], expanded[held_out]
        values, vectors = torch.linalg.eigh(fitted @ fitted.T)
        answers, known = left @ fitted.T @ vectors, vectors.T @ targets[~held_out]

        def error(ridge: float) -> float:
            predicted = answers @ (known / (values.clamp_min(0) + ridge)[:, None])
            return float((predicted - targets[held_out]).square().mean())

        self.ridge = min(self.RIDGES, key=error)

    def solve(self) -> None:
        """Set the weights to (sum x x^T + ridge I)^-1 (class sums)."""
        identity = torch.eye(len(self.second), dtype=torch.float64, device=self.second.device)
        self.weight = torch.linalg.solve(self.second + self.ridge * identity, self.sums)
