"""Learning without Forgetting: distil the old logits, keep no exemplar.

Source: Li and Hoiem, TPAMI 2018; the audio-visual form follows Pian et al., AV-CIL, ICCV 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from avcil.incremental.data.tasks import Task
from avcil.incremental.heads.base import Batch, Outputs
from avcil.incremental.methods.base import Method, Reads
from avcil.incremental.methods.losses import span_cross_entropy, task_distillation


@dataclass(frozen=True, kw_only=True)
class LwF(Method):
    """Cross-entropy among the new classes, and distillation within each earlier task."""

    temperature: float = 2.0

    title = "LwF"
    terms = MappingProxyType({"ce": 1.0, "kd": 1.0})

    def reads(self) -> Reads:
        """Request the logits of all clips."""
        return {"logits": "all"}

    def loss(
        self, batch: Batch, new: Outputs, old: Outputs | None, task: Task
    ) -> dict[str, Tensor]:
        """Return cross-entropy and distillation."""
        terms = {"ce": span_cross_entropy(new.logits, batch.labels, task.new)}
        if old is not None:
            terms["kd"] = task_distillation(new.logits, old.logits, task.earlier, self.temperature)
        return terms
