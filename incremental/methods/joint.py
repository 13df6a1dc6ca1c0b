"""Joint training: in every task, a new network on all classes so far. The upper bound.

Source: Pian et al., AV-CIL, ICCV 2023, section 5.1.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from avcil.incremental.data.clips import Replay
from avcil.incremental.data.tasks import Task
from avcil.incremental.heads.base import Batch, Outputs
from avcil.incremental.methods.base import Method


@dataclass(frozen=True, kw_only=True)
class Joint(Method):
    """Cross-entropy over all classes seen, on all their clips."""

    title = "Joint (upper bound)"
    upper_bound = True
    replay = Replay.ALL

    def loss(
        self, batch: Batch, new: Outputs, old: Outputs | None, task: Task
    ) -> dict[str, Tensor]:
        """Return the cross-entropy."""
        return {"ce": functional.cross_entropy(new.logits, batch.labels)}
