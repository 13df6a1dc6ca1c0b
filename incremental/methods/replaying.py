"""The base class of methods with exemplars whose classifier has one weight vector per class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from avcil.incremental.data.tasks import Task
from avcil.incremental.heads.base import Batch
from avcil.incremental.heads.classifiers import LinearClassifier
from avcil.incremental.heads.network import Network
from avcil.incremental.methods.base import Method
from avcil.incremental.options import later


@dataclass(frozen=True, kw_only=True)
class Replaying(Method):
    """Adds a correction of the bias towards new classes, of which there are more clips."""

    correction: Literal["none", "wa"] = field(default="none", metadata=later("none"))
    """`wa` aligns the weights of new and old classes after each task."""

    def after_task(
        self, network: Network, clips: Iterator[Batch], task: Task
    ) -> Mapping[str, Tensor]:
        """Correct the classifier; there is nothing to note."""
        if self.correction == "wa" and task.earlier:
            assert isinstance(network.classifier, LinearClassifier)
            align_weights(network.classifier, task)
        return {}


@torch.no_grad()
def align_weights(classifier: LinearClassifier, task: Task) -> None:
    """Scale the weights of new classes so that their mean norm is that of the old ones.

    Source: Zhao et al., Maintaining Discrimination and Fairness in Class Incremental Learning (WA),
    CVPR 2020, equation 5.
    """
    norms = classifier.weight.norm(dim=1)
    old, new = norms[: task.new.start].mean(), norms[task.new.start :].mean()
    classifier.weight[task.new.start :] *= old / new
