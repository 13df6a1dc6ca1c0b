"""Duet: a trained head and a closed form of the frozen tokens answer together. Our own method.

The closed form is streaming linear discriminant analysis of the mean tokens: class means and one
covariance of all clips ever trained on, which do not depend on the order of the tasks and are never
forgotten. The head learns what means do not hold, with all classes in one softmax, and distils from
exemplars. The probabilities of both are multiplied.

Source of the closed form: Hayes and Kanan, Deep SLDA, CVPR Workshops 2020.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from avcil.incremental.data.clips import Replay
from avcil.incremental.data.tasks import Task
from avcil.incremental.heads.base import Batch, Outputs
from avcil.incremental.heads.closed_form import DiscriminantClassifier
from avcil.incremental.heads.mean import unit_means
from avcil.incremental.heads.network import Network
from avcil.incremental.methods.base import Reads
from avcil.incremental.methods.losses import feature_distance, task_distillation
from avcil.incremental.methods.replaying import Replaying


@dataclass(frozen=True, kw_only=True)
class Duet(Replaying):
    """Cross-entropy over all classes, feature and logit distillation, beside a closed form."""

    temperature: float = 2.0
    shrinkage: float = 1e-4
    """Share of the identity in the covariance of the closed form."""
    head_weight: float = 1.0
    """Exponent of the head's probabilities in the product; 0 leaves the closed form alone."""

    title = "Duet (ours)"
    head = MappingProxyType({"name": "guided"})
    replay = Replay.PAIRED
    terms = MappingProxyType({"ce": 1.0, "feature": 1.0, "kd": 1.0})

    def before_task(self, network: Network, clips: Iterator[Batch], task: Task) -> None:
        """Add the new clips to the closed form, whose sums are notes of the network."""
        first = next(clips)
        seen = network.encode(first).streams
        form = DiscriminantClassifier(mean_tokens(first, seen).shape[1], self.shrinkage)
        form.to(first.labels.device)
        if task.earlier:
            for name, value in network.notes.all().items():
                setattr(form, name, value)
        form.grow(len(task.new))
        for batch in (first, *clips):
            new = batch.labels >= task.new.start  # exemplars were added when they were new
            form.absorb(mean_tokens(batch, seen)[new], batch.labels[new])
        form.solve()
        network.notes.keep(dict(form.named_buffers()))

    def reads(self) -> Reads:
        """Request the logits of all clips and the tokens of exemplars."""
        return {"logits": "all", "tokens": "exemplars"}

    def loss(
        self, batch: Batch, new: Outputs, old: Outputs | None, task: Task
    ) -> dict[str, Tensor]:
        """Return the terms, those of the guided method with all classes in one softmax."""
        terms = {"ce": functional.cross_entropy(new.logits, batch.labels)}
        if old is not None:
            terms["kd"] = task_distillation(new.logits, old.logits, task.earlier, self.temperature)
            if batch.current < len(batch.labels):
                terms["feature"] = feature_distance(
                    new.encoded, old.encoded, batch.current, "tokens"
                )
        return terms

    def scores(self, network: Network, batch: Batch) -> Tensor:
        """Return the logarithms of the products of both probabilities, up to a constant."""
        outputs = network(batch)
        weight, bias = outputs.notes["weight"], outputs.notes["bias"]
        means = mean_tokens(batch, outputs.encoded.streams).to(weight.dtype)
        closed = (means @ weight + bias).log_softmax(1)
        head: Tensor = outputs.logits.log_softmax(1)
        return closed + self.head_weight * head


def mean_tokens(batch: Batch, modalities: Collection[str]) -> Tensor:
    """Return the mean tokens of each clip as `slda` sees them, side by side; [B, Dv + Da] of both.

    Args:
        batch: the clips, tokens as in the cache.
        modalities: `visual` and `audio`, those that the head uses.
    """
    visual, audio = (
        functional.layer_norm(tokens.float(), tokens.shape[-1:])
        for tokens in (batch.visual, batch.audio)
    )
    means = unit_means(replace(batch, visual=visual, audio=audio))
    named = zip(("visual", "audio"), means, strict=True)
    return torch.cat([mean for name, mean in named if name in modalities], dim=1)
