"""The paper's method: distil features of exemplars and logits of all clips.

Source: "Listen, Look, and Learn: Learning Without Forgetting through SAM-Audio",
arXiv 2606.10887, equations (3) to (7).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from torch import Tensor

from avcil.incremental.data.clips import Replay
from avcil.incremental.data.tasks import Task
from avcil.incremental.heads.base import Batch, Outputs
from avcil.incremental.methods.base import Reads
from avcil.incremental.methods.losses import (
    FeatureDistance,
    Softmax,
    cross_entropy,
    feature_distance,
    task_distillation,
)
from avcil.incremental.methods.replaying import Replaying


@dataclass(frozen=True, kw_only=True)
class Guided(Replaying):
    """Task-separated cross-entropy, feature distillation and logit distillation."""

    temperature: float = 2.0
    cross_entropy: Softmax = "separated"
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
        terms = {"ce": cross_entropy(new.logits, batch, task, self.cross_entropy)}
        if old is not None:
            terms["kd"] = task_distillation(new.logits, old.logits, task.earlier, self.temperature)
            first = batch.current if self.feature_of == "exemplars" else 0
            if first < len(batch.labels):
                terms["feature"] = feature_distance(new.encoded, old.encoded, first, self.feature)
        return terms
