"""The paper's method: distil features of exemplars and logits of all clips.

Source: "Listen, Look, and Learn: Learning Without Forgetting through SAM-Audio",
arXiv 2606.10887, equations (3) to (7).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from avcil.incremental.heads.base import Batch, Outputs
from avcil.incremental.losses import separated_cross_entropy, task_distillation, token_distance
from avcil.incremental.methods.base import Method, Replay
from avcil.incremental.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Guided(Method):
    """Task-separated cross-entropy, feature distillation and logit distillation."""

    temperature: float = 2.0

    replay = Replay.PAIRED
    terms = MappingProxyType({"ce": 1.0, "feature": 1.0, "kd": 1.0})

    def loss(
        self, batch: Batch, new: Outputs, old: Outputs | None, task: Task
    ) -> dict[str, Tensor]:
        """Return the terms of equation (6)."""
        terms = {"ce": separated_cross_entropy(new.logits, batch, task)}
        if old is not None:
            terms["kd"] = task_distillation(new.logits, old.logits, task.earlier, self.temperature)
            kept = slice(batch.current, None)
            mask = old.encoded.mask
            terms["feature"] = token_distance(
                new.encoded.tokens[kept],
                old.encoded.tokens[kept],
                None if mask is None else mask[kept],
            )
        return terms
