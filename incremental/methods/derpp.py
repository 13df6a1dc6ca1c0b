"""Dark experience replay, the variant with labels (DER++).

The published method stores each exemplar's logits with the exemplar. Here the frozen network of the
previous task computes them: they are the same in the second task and updated in later ones.

Source: Buzzega et al., Dark Experience for General Continual Learning, NeurIPS 2020, equation 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor
from torch.nn import functional

from avcil.incremental.data.clips import Replay
from avcil.incremental.data.tasks import Task
from avcil.incremental.heads.base import Batch, Outputs
from avcil.incremental.methods.base import Reads
from avcil.incremental.methods.replaying import Replaying


@dataclass(frozen=True, kw_only=True)
class DERPP(Replaying):
    """Cross-entropy on new clips and on exemplars, and distance to the exemplars' old logits."""

    title = "DER++"
    replay = Replay.PAIRED
    terms = MappingProxyType({"ce": 1.0, "replay": 0.5, "logits": 0.5})

    def reads(self) -> Reads:
        """Request the logits of exemplars."""
        return {"logits": "exemplars"}

    def loss(
        self, batch: Batch, new: Outputs, old: Outputs | None, task: Task
    ) -> dict[str, Tensor]:
        """Return the cross-entropy, and from the second task on the two terms on exemplars."""
        fresh, kept = slice(batch.current), slice(batch.current, None)
        terms = {"ce": functional.cross_entropy(new.logits[fresh], batch.labels[fresh])}
        if old is not None and batch.current < len(batch.labels):
            terms["replay"] = functional.cross_entropy(new.logits[kept], batch.labels[kept])
            known = new.logits[kept, : old.logits.shape[1]]
            terms["logits"] = functional.mse_loss(known, old.logits[-len(known) :])
        return terms
