"""Classifiers that grow with the tasks.

Shapes: B clips, D width, C classes seen so far, K proxies per class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class Classifier(nn.Module, ABC):
    """Maps features to one logit per class; new classes are added at the end."""

    @property
    @abstractmethod
    def classes(self) -> int:
        """C, the number of classes."""

    @abstractmethod
    def grow(self, count: int) -> None:
        """Add the `count` classes of a task; the weights of the others do not change."""

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Return logits [B, C] of features [B, D]."""


class LinearClassifier(Classifier):
    """One weight vector and one bias per class."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.empty(0, width))
        self.bias = nn.Parameter(torch.empty(0))

    @property
    def classes(self) -> int:
        """C, the number of classes."""
        return len(self.weight)

    def grow(self, count: int) -> None:
        """Add classes with the initial weights of `nn.Linear`."""
        new = nn.Linear(self.width, count).to(self.weight.device)
        self.weight = nn.Parameter(torch.cat([self.weight.detach(), new.weight.detach()]))
        self.bias = nn.Parameter(torch.cat([self.bias.detach(), new.bias.detach()]))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits [B, C] of features [B, D]."""
        return functional.linear(features, self.weight, self.bias)


class CosineClassifier(Classifier):
    """One direction per class; the logit is the cosine to it, times a learned scale.

    Source: Hou et al., LUCIR, CVPR 2019, equation 4.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.empty(0, width))
        self.scale = nn.Parameter(torch.tensor(10.0))

    @property
    def classes(self) -> int:
        """C, the number of classes."""
        return len(self.weight)

    def grow(self, count: int) -> None:
        """Add classes with random directions."""
        new = torch.randn(count, self.width).to(self.weight.device) / self.width**0.5
        self.weight = nn.Parameter(torch.cat([self.weight.detach(), new]))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits [B, C] of features [B, D]."""
        return self.scale * functional.normalize(features) @ functional.normalize(self.weight).T


class ProxyClassifier(Classifier):
    """Several proxies per class, weighted by their similarity to the clip. Old ones are frozen.

    A class scores s = sum_k softmax_k(s_k) s_k over its proxies, s_k = 2 cos - 2 being minus the
    squared distance on the unit sphere. Its logit is eta (s - margin), eta learned.

    Source: Douillard et al., PODNet, ECCV 2020, section 3.2; Kang et al., AFC, CVPR 2022.
    """

    old: Tensor  # [C of earlier tasks, K, D]

    def __init__(self, width: int, proxies: int = 10, margin: float = 0.6) -> None:
        super().__init__()
        self.width, self.proxies, self.margin = width, proxies, margin
        # A buffer: weight decay would change a parameter, even one without a gradient.
        self.register_buffer("old", torch.empty(0, proxies, width))
        self.new = nn.Parameter(torch.empty(0, proxies, width))
        self.eta = nn.Parameter(torch.tensor(1.0))

    @property
    def classes(self) -> int:
        """C, the number of classes."""
        return len(self.old) + len(self.new)

    def grow(self, count: int) -> None:
        """Freeze the existing proxies and add classes with random ones."""
        self.old = torch.cat([self.old, self.new.detach()])
        new = torch.randn(count, self.proxies, self.width) / self.width**0.5
        self.new = nn.Parameter(new.to(self.old.device))

    @torch.no_grad()
    def imprint(self, features: Sequence[Tensor]) -> None:
        """Initialize the proxies of new classes with k-means centres of features, [clips, D] each.

        Centres are multiplied by the mean norm of the old proxies; classes with diverse clips
        therefore start with shorter proxies.
        """
        centres = [kmeans(functional.normalize(each), self.proxies) for each in features]
        self.new.copy_(self.old.norm(dim=2).mean() * torch.stack(centres))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits [B, C] of features [B, D]."""
        proxies = functional.normalize(torch.cat([self.old, self.new]), dim=2)
        cosines = functional.normalize(features) @ proxies.flatten(0, 1).T
        scores = 2 * cosines.unflatten(1, (-1, self.proxies)) - 2
        return self.eta * ((scores.softmax(2) * scores).sum(2) - self.margin)


CLASSIFIERS: dict[str, Callable[[int], Classifier]] = {
    "linear": LinearClassifier,
    "cosine": CosineClassifier,
    "proxy": ProxyClassifier,
}


def kmeans(points: Tensor, count: int, rounds: int = 50) -> Tensor:
    """Return K centres of points [N, D] by k-means.

    They are initialized by k-means++ with PyTorch's generator. With fewer points than centres,
    some centres are equal.

    Source: Lloyd, 1982; Arthur and Vassilvitskii, k-means++, SODA 2007.
    """
    centres = _spread(points, count)
    for _ in range(rounds):
        members = functional.one_hot(torch.cdist(points, centres).argmin(1), count).to(points.dtype)
        sizes = members.sum(0)[:, None]
        moved = torch.where(sizes > 0, members.T @ points / sizes.clamp_min(1), centres)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


def _spread(points: Tensor, count: int) -> Tensor:
    """Draw centres from the points, with probabilities proportional to the squared distance."""
    chosen = [points[int(torch.randint(len(points), ()))]]
    for _ in range(count - 1):
        distance = torch.cdist(points, torch.stack(chosen)).min(1).values.square()
        # If every point is already a centre, draw any.
        weights = distance.cpu() if distance.sum() > 0 else torch.ones(len(points))
        chosen.append(points[int(torch.multinomial(weights, 1))])
    return torch.stack(chosen)
