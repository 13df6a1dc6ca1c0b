"""Duet: a trained head and a closed form of the frozen tokens answer together. Our own method.

The closed form is linear discriminant analysis of the mean tokens: class means and one covariance
of all clips ever trained on, which do not depend on the order of the tasks and are never forgotten.
The covariance is shrunk as Ledoit and Wolf estimate. The head learns what means do not hold, with
all classes in one softmax, and distils from exemplars. The probabilities of both are multiplied.

Source of the closed form: Hayes and Kanan, Deep SLDA, CVPR Workshops 2020.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn import functional

from avcil.incremental.data.tasks import Task
from avcil.incremental.heads.base import Batch
from avcil.incremental.heads.mean import unit_means
from avcil.incremental.heads.network import Network
from avcil.incremental.heads.spread import Spread
from avcil.incremental.methods.guided import Guided
from avcil.incremental.methods.losses import Softmax


@dataclass(frozen=True, kw_only=True)
class Duet(Guided):
    """The guided method with all classes in one softmax, beside a closed form."""

    cross_entropy: Softmax = "joint"
    head_weight: float = 1.0
    """Exponent of the head's probabilities in the product; 0 leaves the closed form alone."""

    title = "Duet (ours)"

    def before_task(self, network: Network, clips: Iterator[Batch], task: Task) -> None:
        """Add the new clips to the closed form, whose sums are notes of the network."""
        parts, seen = [], None
        for batch in clips:
            seen = network.encode(batch).streams if seen is None else seen
            new = batch.labels >= task.new.start  # exemplars were added when they were new
            parts.append((mean_tokens(batch, seen)[new], batch.labels[new] - task.new.start))
        features, labels = (torch.cat(part) for part in zip(*parts, strict=True))
        members = functional.one_hot(labels, len(task.new)).double()
        means = (members.T @ features.double()) / members.sum(0)[:, None]
        spread = Spread.of(features.double() - means[labels])
        if task.earlier:
            kept = network.notes.all()
            means = torch.cat([kept["means"], means])
            spread = Spread(
                *(getattr(spread, each.name) + kept[each.name] for each in fields(Spread))
            )
        weight, bias = spread.discriminant(means)
        sums = {each.name: getattr(spread, each.name) for each in fields(Spread)}
        network.notes.keep({**sums, "means": means, "weight": weight, "bias": bias})

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
        modalities: `visual` and `audio`, those that the head uses; empty if it does not say.
    """
    visual, audio = (
        functional.layer_norm(tokens.float(), tokens.shape[-1:])
        for tokens in (batch.visual, batch.audio)
    )
    means = unit_means(replace(batch, visual=visual, audio=audio))
    named = zip(("visual", "audio"), means, strict=True)
    return torch.cat([mean for name, mean in named if name in modalities or not modalities], dim=1)
