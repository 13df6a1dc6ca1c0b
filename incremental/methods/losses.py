"""Loss terms that several methods share. Each is a mean over clips.

Shapes: B clips, C classes seen so far, Co classes of the old model, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from avcil.incremental.data.tasks import Task
from avcil.incremental.heads.base import Batch, Encoded

FeatureDistance = Literal["tokens", "pooled", "cosine", "smooth-l1"]
Softmax = Literal["separated", "own-task", "joint"]
"""Which classes share a softmax: new ones and old ones apart, those of each task, or all."""


def widen(values: Tensor) -> Tensor:
    """Convert bfloat16, which networks return under autocast, to float32; keep other types."""
    return values.float() if values.dtype is torch.bfloat16 else values


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


def feature_distance(new: Encoded, old: Encoded, first: int, kind: FeatureDistance) -> Tensor:
    """Mean distance of the features of clips [first:], one of the kinds of `FeatureDistance`.

    `old`, and the tokens of both, may hold these clips alone.

    Source: equation (4) of the paper, read as a mean squared error of tokens.
    """
    count = len(new.features) - first
    if kind == "pooled":
        return functional.mse_loss(new.features[first:], old.features[-count:])
    mask = None if old.mask is None else old.mask[-count:]
    return token_distance(new.tokens[-count:], old.tokens[-count:], mask, kind)


def token_distance(
    new: Tensor, old: Tensor, mask: Tensor | None, kind: FeatureDistance = "tokens"
) -> Tensor:
    """Mean distance of tokens [B, T, D], over real tokens [B, T]."""
    new, old = widen(new), widen(old)
    if kind == "cosine":
        each = 1 - functional.cosine_similarity(new, old, dim=-1)
    elif kind == "smooth-l1":
        each = functional.smooth_l1_loss(new, old, reduction="none").mean(-1)
    else:
        each = (new - old).square().mean(-1)
    if mask is None:
        return each.mean()
    weight = mask.to(each.dtype)
    return (each * weight).sum() / weight.sum().clamp_min(1)


def own_task_cross_entropy(logits: Tensor, labels: Tensor, task: Task) -> Tensor:
    """Cross-entropy where each clip chooses among the classes of its own task alone."""
    chosen = logits.new_zeros(len(labels))
    for span in (*task.earlier, task.new):
        block = logits[:, span.start : span.stop].log_softmax(1)
        place = (labels - span.start).clamp(0, len(span) - 1)
        inside = (labels >= span.start) & (labels < span.stop)
        # `where`, not a selection: the shape must not depend on the labels.
        chosen = torch.where(inside, block.gather(1, place[:, None])[:, 0], chosen)
    return -chosen.mean()


def cross_entropy(logits: Tensor, batch: Batch, task: Task, kind: Softmax) -> Tensor:
    """Cross-entropy of the batch in one of the forms of `Softmax`."""
    if kind == "joint":
        return functional.cross_entropy(logits, batch.labels)
    if kind == "own-task":
        return own_task_cross_entropy(logits, batch.labels, task)
    return separated_cross_entropy(logits, batch, task)


def sigmoid_distillation(new: Tensor, old: Tensor, *, sigmoid_twice: bool = False) -> Tensor:
    """Binary cross-entropy of each old class's probability; mean over clips and old classes.

    Args:
        new: [B, C] logits of the network in training.
        old: [B, Co] logits of the frozen network.
        sigmoid_twice: compute new probabilities as sigmoid(sigmoid(z)), as AV-CIL's released code
            does, whose loss applies a sigmoid to probabilities.

    Source: Rebuffi et al., iCaRL, CVPR 2017, algorithm 3.
    """
    logits = new[:, : old.shape[1]]
    if sigmoid_twice:
        logits = logits.sigmoid()
    return functional.binary_cross_entropy_with_logits(logits, old.sigmoid())


def neighbourhood_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """NCA loss -u_y + log(1 + sum of e^{u_c} over other classes c), u = logits minus their maximum.

    Source: Douillard et al., PODNet, ECCV 2020, equation 5; Kang et al., AFC, CVPR 2022.
    """
    shifted = logits - logits.amax(1, keepdim=True)
    right = shifted.gather(1, labels[:, None])
    others = shifted.scatter(1, labels[:, None], -torch.inf)
    none = torch.zeros_like(right)  # e^0 = 1
    return (torch.cat([none, others], 1).logsumexp(1) - right[:, 0]).mean()


def direction_distance(new: Tensor, old: Tensor) -> Tensor:
    """Euclidean distances between directions, [B], of vectors [B, D]."""
    return (functional.normalize(new) - functional.normalize(old)).norm(dim=1)


def attention_distillation(new: Tensor, old: Tensor) -> Tensor:
    """KL(old || new) of attention maps given as logarithms [B, ...], summed; mean over clips.

    Source: Pian et al., AV-CIL, ICCV 2023, section 4.4.
    """
    return functional.kl_div(widen(new), widen(old), reduction="batchmean", log_target=True)


def instance_contrast(similarity: Tensor) -> Tensor:
    """Cross-entropy of finding the video of each clip's audio; similarity [B, B], audio by video.

    Source: Pian et al., AV-CIL, ICCV 2023, section 4.2.
    """
    return -similarity.log_softmax(1).diagonal().mean()


def class_contrast(similarity: Tensor, labels: Tensor, *, per_anchor: bool = False) -> Tensor:
    """Cross-entropy of finding the videos of the class of each clip's audio.

    Args:
        similarity: [B, B] scores of each audio with each video, divided by the temperature.
        labels: [B] classes.
        per_anchor: mean over each clip's partners, then over clips: equation 7 as printed. Without
            it the sum over all pairs is divided by B^2, as the released code does.

    Source: Pian et al., AV-CIL, ICCV 2023, equation 7.
    """
    partners = (labels[:, None] == labels[None]).to(similarity.dtype)
    gathered = (partners * similarity.log_softmax(1)).sum(1)
    if per_anchor:
        return -(gathered / partners.sum(1)).mean()
    return -gathered.mean() / len(labels)
