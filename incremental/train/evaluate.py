"""What a network answers, and how often it is right.

Shapes: N clips, B of a batch, D width, C classes seen so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from avcil.cache.reader import FeatureStore
from avcil.incremental.data.clips import TokenSet
from avcil.incremental.data.tasks import Task
from avcil.incremental.heads.base import Outputs
from avcil.incremental.heads.network import Network
from avcil.incremental.runs.attention import Attention, find_videos


@torch.no_grad()
def predict(network: Network, clips: TokenSet, means: Tensor | None = None) -> Tensor:
    """Return the predicted position of each clip, [N], among all classes seen.

    Args:
        network: what is tested.
        clips: the clips.
        means: [C, D] of `class_means` to take the nearest of; without them the largest logit wins.
    """
    network.eval()
    return torch.cat([_decide(network(batch), means) for batch in clips.batches()])


def _decide(outputs: Outputs, means: Tensor | None) -> Tensor:
    if means is None:
        return outputs.logits.argmax(1)
    # Both sides have norm one, so the nearest mean is the one with the largest cosine.
    return (functional.normalize(outputs.encoded.features) @ means.T).argmax(1)


@torch.no_grad()
def unit_features(network: Network, clips: TokenSet, chosen: Tensor | None = None) -> Tensor:
    """Return the features of clips, or of those at positions [N], scaled to norm one, [N, D]."""
    network.eval()
    features = [network.encode(batch).features for batch in clips.batches(chosen=chosen)]
    return functional.normalize(torch.cat(features))


def class_means(network: Network, clips: TokenSet) -> Tensor:
    """Return the direction of each class's mean, [C, D]; zero for a class without clips.

    Source: Rebuffi et al., iCaRL, CVPR 2017, algorithm 1.
    """
    features = unit_features(network, clips)
    members = functional.one_hot(clips.labels, network.classifier.classes).to(features.dtype)
    return functional.normalize(members.T @ features)  # the sum has the direction of the mean


def accuracy(network: Network, clips: TokenSet, means: Tensor | None = None) -> float:
    """Return the share of clips that are classified rightly, in [0, 1]."""
    right = predict(network, clips, means) == clips.labels
    return float(right.sum()) / len(right)


def confusion(
    true: NDArray[np.int64], answered: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Count clips by true class and class answered, [N] each, into [C, C]."""
    pairs = np.bincount(true * classes + answered, minlength=classes * classes)
    return pairs.reshape(classes, classes)


def count_correct(counts: NDArray[np.int64], tasks: Sequence[Task]) -> list[int]:
    """Return how many clips of each task are classified rightly, from `confusion`."""
    right = counts.diagonal()
    return [int(right[task.new.start : task.new.stop].sum()) for task in tasks]


@torch.no_grad()
def guided_attention(
    network: Network,
    store: FeatureStore,
    names: Sequence[str],
    rows: NDArray[np.int64],
    clips: TokenSet,
) -> list[Attention]:
    """Return which sounds guided which frames of each clip; none where the head has no attention.

    Args:
        network: the network after the last task.
        store: the cache.
        names: [C] class names in learning order.
        rows: [B] rows of the clips.
        clips: the clips themselves.
    """
    weights = network.guidance(next(clips.batches(len(clips))))
    if weights is None:
        return []
    answers = predict(network, clips)
    videos = find_videos(Path(store.where), [store.manifest.ids[row] for row in rows])
    return [
        Attention(
            weights=weights[number, : clips.visual_lengths[number], : clips.audio_lengths[number]]
            .float()
            .cpu()
            .numpy(),
            visual_hz=store.encoding.visual_rate_hz * store.encoding.tokens_per_frame,
            audio_hz=store.encoding.audio_rate_hz,
            clip=store.manifest.ids[row],
            label=names[int(clips.labels[number])],
            answer=names[int(answers[number])],
            video=videos.get(store.manifest.ids[row]),
        )
        for number, row in enumerate(rows)
    ]
