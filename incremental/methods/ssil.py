"""SS-IL: separated softmax for old and new classes, and distillation task by task.

Source: Ahn et al., SS-IL, ICCV 2021, equations 4 to 6.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

from torch import Tensor

from avcil.incremental.data.clips import Replay
from avcil.incremental.data.tasks import Task
from avcil.incremental.heads.base import Batch, Outputs
from avcil.incremental.methods.base import Reads
from avcil.incremental.methods.losses import Softmax, cross_entropy, task_distillation
from avcil.incremental.methods.replaying import Replaying
from avcil.incremental.options import later


@dataclass(frozen=True, kw_only=True)
class SSIL(Replaying):
    """Separated cross-entropy and distillation, exemplars joined to every batch."""

    temperature: float = 2.0
    cross_entropy: Softmax = field(default="separated", metadata=later("separated"))

    title = "SS-IL"
    replay = Replay.PAIRED
    terms = MappingProxyType({"ce": 1.0, "kd": 1.0})

    def reads(self) -> Reads:
        """Request the logits of all clips."""
        return {"logits": "all"}

    def loss(
        self, batch: Batch, new: Outputs, old: Outputs | None, task: Task
    ) -> dict[str, Tensor]:
        """Return cross-entropy and distillation."""
        terms = {"ce": cross_entropy(new.logits, batch, task, self.cross_entropy)}
        if old is not None:
            terms["kd"] = task_distillation(new.logits, old.logits, task.earlier, self.temperature)
        return terms
