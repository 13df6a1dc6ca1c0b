"""Loss terms that several methods share. Each is a mean over clips.

Shapes: B clips, C classes seen so far, Co classes of the old model, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from avcil.incremental.heads.base import Batch
from avcil.incremental.tasks import Task


def span_cross_entropy(logits: Tensor, labels: Tensor, span: range) -> Tensor:
    """Cross-entropy among the classes of `span` alone, of clips whose labels lie in it."""
    block = logits[:, span.start : span.stop]
    return functional.cross_entropy(block, labels - span.start)


def separated_cross_entropy(logits: Tensor, batch: Batch, task: Task) -> Tensor:
    """Cross-entropy where old and new classes never compete; mean over all clips.

    The current clips choose among the new classes, the exemplars among all old ones.

    Source: Ahn et al., SS-IL, ICCV 2021, equation 4; equation (3) of the paper.
    """
    current, size = batch.current, len(batch.labels)
    new = span_cross_entropy(logits[:current], batch.labels[:current], task.new)
    if current == size:
        return new
    old = span_cross_entropy(logits[current:], batch.labels[current:], task.old)
    return (current * new + (size - current) * old) / size


def task_distillation(
    new: Tensor, old: Tensor, tasks: Sequence[range], temperature: float
) -> Tensor:
    """Sum over earlier tasks of T^2 KL(old || new), softmax within each task's classes.

    Args:
        new: [B, C] logits of the network in training.
        old: [B, Co] logits of the frozen network of the previous task.
        tasks: classes of each earlier task; together they are the first Co classes.
        temperature: T, softens both sides.

    Source: Li and Hoiem, LwF, TPAMI 2018; equation (5) of the paper.
    """
    terms = []
    for span in tasks:
        student = (new[:, span.start : span.stop] / temperature).log_softmax(1)
        teacher = (old[:, span.start : span.stop] / temperature).log_softmax(1)
        terms.append(functional.kl_div(student, teacher, reduction="batchmean", log_target=True))
    return temperature**2 * torch.stack(terms).sum()


def token_distance(new: Tensor, old: Tensor, mask: Tensor | None) -> Tensor:
    """Mean squared difference of tokens [B, T, D], over real tokens and channels.

    Source: equation (4) of the paper, read as a mean squared error.
    """
    if mask is None:
        return functional.mse_loss(new, old)
    weight = mask.to(new.dtype)
    return ((new - old).square().mean(-1) * weight).sum() / weight.sum().clamp_min(1)
