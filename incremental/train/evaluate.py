"""Predictions, and how many of them are correct.

Shapes: N clips, B of a batch, D width, C classes seen so far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from avcil.incremental.data.clips import TokenSet
from avcil.incremental.data.tasks import Task
from avcil.incremental.heads.network import Network
from avcil.incremental.runs.attention import Attention, find_videos
from avcil.incremental.runs.results import Results
from avcil.incremental.train.rules import Rule
from avcil.incremental.train.scenario import Scenario


@torch.no_grad()
def predict(network: Network, clips: TokenSet, rule: Rule) -> Tensor:
    """Return the predicted class of each clip, [N] positions among all classes seen."""
    network.eval()
    return torch.cat([rule(network, batch).argmax(1) for batch in clips.batches()])


@torch.no_grad()
def unit_features(network: Network, clips: TokenSet, chosen: Tensor | None = None) -> Tensor:
    """Return features scaled to norm one, [N, D], of all clips or of those at positions [N]."""
    network.eval()
    features = [network.encode(batch).features for batch in clips.batches(chosen=chosen)]
    return functional.normalize(torch.cat(features))


def features_of_class(network: Network, clips: TokenSet) -> Callable[[int], NDArray[np.float32]]:
    """Return a function from the position of a class to the unit features of its clips, [N, D]."""

    def features(position: int) -> NDArray[np.float32]:
        chosen = (clips.labels == position).nonzero()[:, 0].cpu()
        return unit_features(network, clips, chosen).cpu().numpy()

    return features


def accuracy(network: Network, clips: TokenSet, rule: Rule) -> float:
    """Return the fraction of clips that are classified correctly, in [0, 1]."""
    correct = predict(network, clips, rule) == clips.labels
    return float(correct.sum()) / len(correct)


def record_test(
    results: Results,
    scenario: Scenario,
    task: Task,
    rows: NDArray[np.int64],
    predicted: NDArray[np.int64],
) -> None:
    """Add the counts of correct test clips after a task to the results.

    A second count leaves out clips that share a video with a training clip. After the last task,
    the confusion matrix is added.

    Args:
        results: of the run; a row is appended.
        scenario: the scenario.
        task: the last task trained.
        rows: [N] rows of the test clips in the cache.
        predicted: [N] position of the class predicted for each.
    """
    true = scenario.positions[scenario.store.manifest.labels[rows]]
    tasks, classes = scenario.tasks[: task.index + 1], len(task.seen)
    counts = confusion(true, predicted, classes)
    results.correct.append(count_correct(counts, tasks))
    if results.leak_free_total:
        kept = ~scenario.leaks[rows]
        kept_counts = confusion(true[kept], predicted[kept], classes)
        results.leak_free_correct.append(count_correct(kept_counts, tasks))
    if results.complete:
        results.confusion = counts.tolist()


def confusion(
    true: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Count clips by true class and predicted class, [N] each, into [C, C]."""
    pairs = np.bincount(true * classes + predicted, minlength=classes * classes)
    return pairs.reshape(classes, classes)


def count_correct(counts: NDArray[np.int64], tasks: Sequence[Task]) -> list[int]:
    """Return the number of clips of each task that are classified correctly, from `confusion`."""
    correct = counts.diagonal()
    return [int(correct[task.new.start : task.new.stop].sum()) for task in tasks]


@torch.no_grad()
def example_attention(
    network: Network, scenario: Scenario, clips: TokenSet, rule: Rule
) -> list[Attention]:
    """Return the attention on the example clips; empty if audio does not guide video in the head.

    Args:
        network: the network after the last task.
        scenario: the scenario.
        clips: those of `Scenario.example_rows`.
        rule: gives the answers.
    """
    weights = network.attention_weights(next(clips.batches(len(clips))))
    if weights is None:
        return []
    store = scenario.store
    names = [name for task in scenario.class_names() for name in task]
    ids = [store.manifest.ids[row] for row in scenario.example_rows()]
    folders = [Path(path).parent / "videos" for path in store.paths]
    videos = {clip: file for each in folders for clip, file in find_videos(each, ids).items()}
    predicted = predict(network, clips, rule)
    return [
        Attention(
            weights=weights[number, : clips.visual_lengths[number], : clips.audio_lengths[number]]
            .float()
            .cpu()
            .numpy(),
            visual_hz=store.encoding.visual_rate_hz * store.encoding.tokens_per_frame,
            audio_hz=store.encoding.audio_rate_hz,
            clip=clip,
            label=names[int(clips.labels[number])],
            answer=names[int(predicted[number])],
            video=videos.get(clip),
        )
        for number, clip in enumerate(ids)
    ]
