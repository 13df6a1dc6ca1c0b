"""iCaRL: herded exemplars, and a separate distillation of each old class's probability.

Source: Rebuffi et al., iCaRL, CVPR 2017; the audio-visual form follows Pian et al., AV-CIL,
ICCV 2023, whose iCaRL-FC and iCaRL-NME differ only in how they classify.
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
from avcil.incremental.methods.losses import sigmoid_distillation
from avcil.incremental.methods.replaying import Replaying


@dataclass(frozen=True, kw_only=True)
class ICaRL(Replaying):
    """Cross-entropy and sigmoid distillation: the training that both methods below share."""

    compat: bool = False
    """Apply the sigmoid twice, as AV-CIL's released code does."""

    replay = Replay.MIXED
    selection = "herding"
    terms = MappingProxyType({"ce": 1.0, "kd": 1.0})

    def reads(self) -> Reads:
        """Request the logits of all clips."""
        return {"logits": "all"}

    def loss(
        self, batch: Batch, new: Outputs, old: Outputs | None, task: Task
    ) -> dict[str, Tensor]:
        """Return cross-entropy and distillation."""
        terms = {"ce": functional.cross_entropy(new.logits, batch.labels)}
        if old is not None:
            terms["kd"] = sigmoid_distillation(new.logits, old.logits, sigmoid_twice=self.compat)
        return terms


@dataclass(frozen=True, kw_only=True)
class ICaRLLargestLogit(ICaRL):
    """iCaRL that predicts the class of the largest logit (FC)."""

    title = "iCaRL-FC"


@dataclass(frozen=True, kw_only=True)
class ICaRLNearestMean(ICaRL):
    """iCaRL that predicts the class whose exemplars' mean is nearest (NME)."""

    title = "iCaRL-NME"
    classify = "nearest-mean"
