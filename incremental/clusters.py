"""K-means, for the first proxies of a class.

Shapes: N points, D width, K centres.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def kmeans(points: Tensor, count: int, rounds: int = 50) -> Tensor:
    """Return K centres of points [N, D], each the mean of the points nearest to it.

    The first centres are chosen far from each other with PyTorch's generator. With fewer points
    than centres some centres are equal.

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
    """Draw centres from the points, each with a chance that grows with its squared distance."""
    chosen = [points[int(torch.randint(len(points), ()))]]
    for _ in range(count - 1):
        distance = torch.cdist(points, torch.stack(chosen)).min(1).values.square()
        # Where every point is a centre already, any will do.
        weights = distance.cpu() if distance.sum() > 0 else torch.ones(len(points))
        chosen.append(points[int(torch.multinomial(weights, 1))])
    return torch.stack(chosen)
