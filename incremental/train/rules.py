"""How a trained network is asked for the class of a clip.

Shapes: N clips, B of a batch, D width, C classes seen so far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from avcil.incremental.data.clips import TokenSet
from avcil.incremental.heads.base import Batch
from avcil.incremental.heads.network import Network
from avcil.incremental.heads.spread import Spread
from avcil.incremental.methods.base import Classify, Method

Rule = Callable[[Network, Batch], Tensor]
"""Returns the scores of the classes, [B, C]; the largest is the prediction."""


def make_rule(kind: Classify, method: Method, network: Network, clips: TokenSet) -> Rule:
    """Return the rule of a kind.

    Args:
        kind: of the configuration.
        method: gives the scores of `logits`.
        network: the trained network.
        clips: what means and covariance are taken from; not read for `logits`.
    """
    return restore_rule(kind, method, fit_rule(kind, network, clips))


def fit_rule(kind: Classify, network: Network, clips: TokenSet) -> dict[str, Tensor]:
    """Return what a rule of a kind takes from clips, for `restore_rule`: nothing for `logits`."""
    if kind == "logits":
        return {}
    if kind == "nearest-mean":
        return {"means": class_means(network, clips)}
    features, labels = all_features(network, clips)
    weight, bias = discriminant(features, labels, network.classifier.classes)
    return {"weight": weight, "bias": bias}


def restore_rule(kind: Classify, method: Method, fitted: Mapping[str, Tensor]) -> Rule:
    """Return the rule of a kind from what `fit_rule` returned."""
    if kind == "logits":
        return method.scores
    if kind == "nearest-mean":
        return nearest_mean(fitted["means"])
    return linear(fitted["weight"], fitted["bias"])


def nearest_mean(means: Tensor) -> Rule:
    """Return the rule of the nearest of some means, [C, D] of norm one, by direction."""

    def scores(network: Network, batch: Batch) -> Tensor:
        return functional.normalize(network.encode(batch).features) @ means.T

    return scores


def linear(weight: Tensor, bias: Tensor) -> Rule:
    """Return the rule of the largest linear function of the features, [D, C] and [C]."""

    def scores(network: Network, batch: Batch) -> Tensor:
        return network.encode(batch).features.to(weight.dtype) @ weight + bias

    return scores


def class_means(network: Network, clips: TokenSet) -> Tensor:
    """Return the direction of each class's mean, [C, D]; zero for a class without clips.

    Source: Rebuffi et al., iCaRL, CVPR 2017, algorithm 1.
    """
    features, labels = all_features(network, clips)
    features = functional.normalize(features)
    members = functional.one_hot(labels, network.classifier.classes).to(features.dtype)
    return functional.normalize(members.T @ features)  # the sum has the direction of the mean


@torch.no_grad()
def all_features(network: Network, clips: TokenSet) -> tuple[Tensor, Tensor]:
    """Return features [N, D] and labels [N] of all clips."""
    network.eval()
    features = [network.encode(batch).features for batch in clips.batches()]
    return torch.cat(features), clips.labels


def discriminant(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return weight [D, C] and bias [C] of linear discriminant analysis, all classes as likely."""
    members = functional.one_hot(labels, classes).double()
    means = (members.T @ features.double()) / members.sum(0).clamp_min(1)[:, None]
    return Spread.of(features.double() - means[labels]).discriminant(means)
