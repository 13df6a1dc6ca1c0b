"""AFC: distil each layer in proportion to how much the old classes depend on it.

Source: Kang et al., Class-Incremental Learning by Knowledge Distillation with Adaptive Feature
Consolidation, CVPR 2022; the audio-visual form follows Pian et al., AV-CIL, ICCV 2023.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from avcil.incremental.data.clips import Replay
from avcil.incremental.data.tasks import Task
from avcil.incremental.heads.base import Batch, Outputs
from avcil.incremental.heads.classifiers import ProxyClassifier
from avcil.incremental.heads.network import Network
from avcil.incremental.methods.base import Method, Reads
from avcil.incremental.methods.importance import (
    gradient_norms,
    layer_importance,
    pooled_layers,
    shares,
)
from avcil.incremental.methods.losses import direction_distance, neighbourhood_loss


@dataclass(frozen=True, kw_only=True)
class AFC(Method):
    """NCA loss on proxies and discrepancy of layers: the training that both methods below share."""

    proxies: int = 10
    margin: float = 0.6
    importance_of: Literal["clips", "layers"] = "clips"
    """`clips`: each clip weighs the layers by its own gradient in the previous task's network with
    the new classes added at random, as in AV-CIL's released code. `layers`: one weight for each,
    measured over all clips of the previous task when it was finished, as in the original."""
    reset_scale: bool = True
    """Whether the learned scale of the logits starts at 1 in every task, as in AV-CIL's released
    code, instead of from the previous task's."""

    replay = Replay.MIXED
    selection = "herding"
    terms = MappingProxyType({"nca": 1.0, "discrepancy": 0.5})

    def classifier(self, width: int) -> ProxyClassifier:
        """Return a proxy classifier without classes."""
        return ProxyClassifier(width, self.proxies, self.margin)

    def before_task(self, network: Network, clips: Iterator[Batch], task: Task) -> None:
        """Initialize the proxies of new classes from their clips; in the first task, at random."""
        if task.earlier:
            assert isinstance(network.classifier, ProxyClassifier)
            if self.reset_scale:
                network.classifier.eta.fill_(1.0)
            batches = [(network.encode(batch).features, batch.labels) for batch in clips]
            features, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
            network.classifier.imprint([features[labels == position] for position in task.new])

    def reads(self) -> Reads:
        """Request the pooled layers of all clips, and how important they are for each clip."""
        layers: Reads = {"layers": "all"}
        return layers if self.importance_of == "layers" else {**layers, "importance": "all"}

    def importance(self, network: Network, batch: Batch) -> Tensor:
        """Return the share of each layer in the gradient of each clip, [B, layers]."""
        return shares(gradient_norms(network, batch, neighbourhood_loss))

    def loss(
        self, batch: Batch, new: Outputs, old: Outputs | None, task: Task
    ) -> dict[str, Tensor]:
        """Return the NCA loss and the discrepancy, whose weight grows with every task."""
        terms = {"nca": neighbourhood_loss(new.logits, batch.labels)}
        if old is not None:
            layers = zip(pooled_layers(new.encoded), pooled_layers(old.encoded), strict=True)
            apart = torch.stack([direction_distance(now, before) for now, before in layers], dim=1)
            weighted = (apart * old.notes["importance"]).sum(1).mean()
            terms["discrepancy"] = math.sqrt(task.index + 1) * weighted
        return terms

    def after_task(
        self, network: Network, clips: Iterator[Batch], task: Task
    ) -> Mapping[str, Tensor]:
        """Return how much the loss depends on each layer, if that is what weighs them."""
        if self.importance_of == "clips":
            return {}
        return {"importance": layer_importance(network, clips, neighbourhood_loss)}


@dataclass(frozen=True, kw_only=True)
class AFCLargestLogit(AFC):
    """AFC that predicts the class of the largest logit (LSC)."""

    title = "AFC-LSC"


@dataclass(frozen=True, kw_only=True)
class AFCNearestMean(AFC):
    """AFC that predicts the class whose exemplars' mean is nearest (NME)."""

    title = "AFC-NME"
    classify = "nearest-mean"
