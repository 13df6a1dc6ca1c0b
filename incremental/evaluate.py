"""One row of the accuracy matrix.

Shapes: N clips, C classes seen so far.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from avcil.incremental.data import TokenSet
from avcil.incremental.heads.network import Network
from avcil.incremental.methods.base import Method
from avcil.incremental.tasks import Task

BATCH = 256


@torch.no_grad()
def predict(network: Network, method: Method, clips: TokenSet) -> torch.Tensor:
    """Return the predicted position of each clip, [N], among all classes seen."""
    network.eval()
    return torch.cat([method.classify(network(batch)) for batch in clips.batches(BATCH)])


def accuracy(network: Network, method: Method, clips: TokenSet) -> float:
    """Return the share of clips that are classified rightly, in [0, 1]."""
    right = predict(network, method, clips) == clips.labels
    return float(right.sum()) / len(right)


def count_correct(
    network: Network, method: Method, parts: Iterable[TokenSet], tasks: Sequence[Task]
) -> list[int]:
    """Return how many clips of each task are classified rightly.

    Args:
        network: what is tested.
        method: says how outputs become predictions.
        parts: the test clips of all classes seen, a part at a time.
        tasks: every task so far.
    """
    edges = torch.tensor([task.new.stop for task in tasks])
    counts = torch.zeros(len(tasks), dtype=torch.int64)
    for clips in parts:
        right = clips.labels[predict(network, method, clips) == clips.labels].cpu()
        counts += torch.bincount(torch.bucketize(right, edges, right=True), minlength=len(tasks))
    return [int(count) for count in counts]
