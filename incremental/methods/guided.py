"""The paper's method: distil features of exemplars and logits of all clips.

Source: "Listen, Look, and Learn: Learning Without Forgetting through SAM-Audio",
arXiv 2606.10887, equations (3) to (7).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from torch import Tensor
from torch.nn import functional

from avcil.incremental.data.clips import Replay
from avcil.incremental.data.tasks import Task
from avcil.incremental.heads.base import Batch, Outputs
from avcil.incremental.methods.base import Method, Reads
from avcil.incremental.methods.losses import (
    FeatureDistance,
    feature_distance,
    own_task_cross_entropy,
    separated_cross_entropy,
    task_distillation,
)


@dataclass(frozen=True, kw_only=True)
class Guided(Method):
    """Task-separated cross-entropy, feature distillation and logit distillation."""

    temperature: float = 2.0
    cross_entropy: Literal["separated", "own-task", "joint"] = "separated"
    """Which classes share a softmax: new ones and old ones apart, those of each task, or all."""
    feature: FeatureDistance = "tokens"
    """How features are compared: mean squared error of tokens or of their mean, mean cosine
    distance of tokens, or smooth L1 of tokens."""
    feature_of: Literal["exemplars", "all"] = "exemplars"

    title = "Guided (the paper)"
    head = MappingProxyType({"name": "guided"})
    replay = Replay.PAIRED
    terms = MappingProxyType({"ce": 1.0, "feature": 1.0, "kd": 1.0})

    def reads(self) -> Reads:
        """Request the logits, and the features in the form in which they are compared."""
        compared = "features" if self.feature == "pooled" else "tokens"
        return {"logits": "all", compared: self.feature_of}

    def loss(
        self, batch: Batch, new: Outputs, old: Outputs | None, task: Task
    ) -> dict[str, Tensor]:
        """Return the terms of equation (6)."""
        terms = {"ce": self._cross_entropy(new.logits, batch, task)}
        if old is not None:
            terms["kd"] = task_distillation(new.logits, old.logits, task.earlier, self.temperature)
            first = batch.current if self.feature_of == "exemplars" else 0
            if first < len(batch.labels):
                terms["feature"] = feature_distance(new.encoded, old.encoded, first, self.feature)
        return terms

    def _cross_entropy(self, logits: Tensor, batch: Batch, task: Task) -> Tensor:
        if self.cross_entropy == "joint":
            return functional.cross_entropy(logits, batch.labels)
        if self.cross_entropy == "own-task":
            return own_task_cross_entropy(logits, batch.labels, task)
        return separated_cross_entropy(logits, batch, task)
