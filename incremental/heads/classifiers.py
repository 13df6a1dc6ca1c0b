"""Classifiers that grow with the tasks.

Shapes: B clips, D width, C classes seen so far.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional


class Classifier(nn.Module, ABC):
    """Features to one logit a class; classes are only ever added at the end."""

    @property
    @abstractmethod
    def classes(self) -> int:
        """C, classes the classifier knows."""

    @abstractmethod
    def grow(self, count: int) -> None:
        """Add `count` classes and leave the weights of the others as they are."""

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Return logits [B, C] of features [B, D]."""


class LinearClassifier(Classifier):
    """One weight vector and one bias a class."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.empty(0, width))
        self.bias = nn.Parameter(torch.empty(0))

    @property
    def classes(self) -> int:
        """C, classes the classifier knows."""
        return len(self.weight)

    def grow(self, count: int) -> None:
        """Add classes with the initial weights of `nn.Linear`."""
        new = nn.Linear(self.width, count).to(self.weight.device)
        self.weight = nn.Parameter(torch.cat([self.weight.detach(), new.weight.detach()]))
        self.bias = nn.Parameter(torch.cat([self.bias.detach(), new.bias.detach()]))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits [B, C] of features [B, D]."""
        return functional.linear(features, self.weight, self.bias)
