"""The base class of methods in closed form: nothing is trained by gradient descent."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from avcil.incremental.data.tasks import Task
from avcil.incremental.heads.base import Batch, Outputs
from avcil.incremental.heads.closed_form import MomentClassifier
from avcil.incremental.heads.network import Network
from avcil.incremental.methods.base import Method


class ClosedForm(Method):
    """Accumulates sums over the clips of each task and solves for the classifier."""

    head = MappingProxyType({"name": "mean", "input_norm": "layernorm"})
    terms = MappingProxyType({})

    @abstractmethod
    def classifier(self, width: int) -> MomentClassifier:
        """Return the classifier, without classes."""

    def loss(
        self, batch: Batch, new: Outputs, old: Outputs | None, task: Task
    ) -> dict[str, Tensor]:
        """Return no terms: nothing is trained."""
        return {}

    def after_task(
        self, network: Network, clips: Iterator[Batch], task: Task
    ) -> Mapping[str, Tensor]:
        """Add the clips of the task and solve again."""
        classifier = network.classifier
        assert isinstance(classifier, MomentClassifier)
        parts = [(network.encode(batch).features.detach(), batch.labels) for batch in clips]
        for features, labels in parts:
            classifier.absorb(features, labels)
        all_features, all_labels = zip(*parts, strict=True)
        classifier.tune(torch.cat(all_features), torch.cat(all_labels))
        classifier.solve()
        return {}
