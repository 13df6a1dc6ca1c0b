"""AV-CIL: SS-IL, audio and video of a class drawn together, and attention distilled.

Source: Pian et al., AV-CIL, ICCV 2023.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

from torch import Tensor
from torch.nn import functional

from avcil.incremental.data.clips import Replay
from avcil.incremental.data.tasks import Task
from avcil.incremental.heads.base import Batch, Outputs
from avcil.incremental.methods.base import Reads
from avcil.incremental.methods.losses import (
    Softmax,
    attention_distillation,
    class_contrast,
    cross_entropy,
    instance_contrast,
    task_distillation,
)
from avcil.incremental.methods.replaying import Replaying
from avcil.incremental.options import later


@dataclass(frozen=True, kw_only=True)
class AVCIL(Replaying):
    """The published losses. Terms whose inputs a head lacks, such as attention, are left out."""

    temperature: float = 2.0
    contrast_temperature: float = 0.05
    class_contrast_per_anchor: bool = False
    """Equation 7 as printed, instead of what the released code computes."""
    cross_entropy: Softmax = field(default="separated", metadata=later("separated"))

    title = "AV-CIL"
    head = MappingProxyType({"name": "avcil"})
    replay = Replay.PAIRED
    terms = MappingProxyType(
        {"ce": 1.0, "kd": 1.0, "instance": 0.5, "class": 1.0, "spatial": 0.5, "temporal": 0.5}
    )

    def reads(self) -> Reads:
        """Request the logits of all clips and the attention on exemplars."""
        return {"logits": "all", "attention": "exemplars"}

    def loss(
        self, batch: Batch, new: Outputs, old: Outputs | None, task: Task
    ) -> dict[str, Tensor]:
        """Return the cross-entropy, and from the second task on all terms."""
        terms = {"ce": cross_entropy(new.logits, batch, task, self.cross_entropy)}
        if old is None:
            return terms
        terms["kd"] = task_distillation(new.logits, old.logits, task.earlier, self.temperature)
        streams = new.encoded.streams
        if {"audio", "visual"} <= streams.keys():
            audio, visual = (functional.normalize(streams[name]) for name in ("audio", "visual"))
            scores = audio @ visual.T / self.contrast_temperature
            terms["instance"] = instance_contrast(scores)
            terms["class"] = class_contrast(
                scores, batch.labels, per_anchor=self.class_contrast_per_anchor
            )
        if batch.current < len(batch.labels):
            for name, logs in new.encoded.attention.items():
                now = logs[batch.current :]
                before = old.encoded.attention[name][-len(now) :]
                terms[name] = attention_distillation(now, before)
        return terms
