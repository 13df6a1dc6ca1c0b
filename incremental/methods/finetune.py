"""Fine-tuning: train on each task alone. The lower bound.

Source: Pian et al., AV-CIL, ICCV 2023, section 5.1.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from avcil.incremental.data.tasks import Task
from avcil.incremental.heads.base import Batch, Outputs
from avcil.incremental.methods.base import Method


@dataclass(frozen=True, kw_only=True)
class FineTune(Method):
    """Cross-entropy over all classes seen, on the new clips alone."""

    title = "Fine-tuning"

    def loss(
        self, batch: Batch, new: Outputs, old: Outputs | None, task: Task
    ) -> dict[str, Tensor]:
        """Return the cross-entropy."""
        return {"ce": functional.cross_entropy(new.logits, batch.labels)}
