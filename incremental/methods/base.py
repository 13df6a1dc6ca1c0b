"""What a method adds to the one training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import ClassVar

from torch import Tensor

from avcil.incremental.heads.base import Batch, Outputs
from avcil.incremental.heads.classifiers import Classifier, LinearClassifier
from avcil.incremental.tasks import Task


class Replay(Enum):
    """Which clips of earlier tasks a later task may see, and how they reach its batches."""

    NONE = "none"  # none
    MIXED = "mixed"  # exemplars, shuffled into the training set
    PAIRED = "paired"  # every batch of new clips is joined by a batch of exemplars
    ALL = "all"  # every clip, and a new network at each task: the upper bound


class Method(ABC):
    """One incremental-learning method: its loss, and what it keeps between tasks.

    A method never loops over epochs, steps an optimiser, moves tensors or logs: the trainer does.
    Hyper-parameters are dataclass fields of the subclass, so a method is its own configuration.
    """

    replay: ClassVar[Replay] = Replay.NONE
    terms: ClassVar[Mapping[str, float]] = MappingProxyType({"ce": 1.0})
    """Default weight of each named loss term; `--set losses.NAME=WEIGHT` changes one."""

    def classifier(self, width: int) -> Classifier:
        """Build the empty classifier that grows task by task."""
        return LinearClassifier(width)

    @abstractmethod
    def loss(
        self, batch: Batch, new: Outputs, old: Outputs | None, task: Task
    ) -> dict[str, Tensor]:
        """Return the named loss terms of one batch; the trainer minimises their weighted sum.

        Args:
            batch: the clips; with paired replay the exemplars come last.
            new: outputs of the network in training.
            old: outputs of the frozen network of the previous task; None in the first task.
            task: the task in training.
        """

    def classify(self, outputs: Outputs) -> Tensor:
        """Return the predicted position of each clip, [B]."""
        return outputs.logits.argmax(dim=1)
