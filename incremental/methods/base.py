"""The interface between a method and the training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import ClassVar, Literal

from torch import Tensor

from avcil.incremental.data.clips import Replay
from avcil.incremental.data.tasks import Task
from avcil.incremental.heads.base import Batch, Outputs
from avcil.incremental.heads.classifiers import Classifier
from avcil.incremental.heads.network import Network

Selection = Literal["random", "herding"]
Classify = Literal["logits", "nearest-mean", "slda"]
"""What decides the class of a clip: the largest logit, the nearest of the class means of the
features, or linear discriminant analysis of the features."""

Reads = Mapping[str, Literal["all", "exemplars"]]
"""Requested outputs of the previous task's network (`logits`, `features`, `tokens`, `layers`,
`attention`, and `importance`, which is not an output), and for which clips of a batch."""


class Method(ABC):
    """One incremental-learning method: its loss, and what it keeps between tasks.

    A method never loops over epochs, steps an optimiser, moves tensors or logs: the trainer does.
    Hyper-parameters are dataclass fields of the subclass, so a method is its own configuration. It
    has no state: what it learns from a task is part of the network, which is saved and restored.
    """

    title: ClassVar[str] = ""
    """Name in tables; if empty, the name by which the method is chosen."""
    upper_bound: ClassVar[bool] = False
    """Whether it trains on clips that other methods may not see; tables show it without a rank."""
    head: ClassVar[Mapping[str, object]] = MappingProxyType({})
    """Settings of the head that the method is designed for, such as `name`; they override those of
    the recipe. If empty, the head of the recipe is used."""
    replay: ClassVar[Replay] = Replay.NONE
    selection: ClassVar[Selection] = "random"
    """How exemplars are chosen."""
    terms: ClassVar[Mapping[str, float]] = MappingProxyType({"ce": 1.0})
    """Default weight of each named loss term; `--set losses.NAME=WEIGHT` changes one. A method
    without terms is in closed form: nothing is trained, and `after_task` does everything."""
    classify: ClassVar[Classify] = "logits"
    """What decides the class of a clip, unless the configuration chooses something else."""

    def classifier(self, width: int) -> Classifier | None:
        """Return an empty classifier of the method's own; None for that of `head.classifier`."""
        return None

    def before_task(self, network: Network, clips: Iterator[Batch], task: Task) -> None:  # noqa: B027
        """Prepare the network, already grown, for a task.

        Args:
            network: the network to train, in evaluation mode, without gradients.
            clips: all that the task trains on, new clips first, then exemplars.
            task: the task that begins.
        """

    def reads(self) -> Reads:
        """Name the outputs of the previous task's network that `loss` reads, and of which clips.

        They are computed once per task and kept in memory, so name no more than needed. `tokens`
        come with their mask, `layers` as means over their tokens. If nothing is named, the previous
        network is not run at all. The network in training gives tokens of the same clips only.
        """
        return {}

    @abstractmethod
    def loss(
        self, batch: Batch, new: Outputs, old: Outputs | None, task: Task
    ) -> dict[str, Tensor]:
        """Return the named loss terms of one batch; the trainer minimises their weighted sum.

        Args:
            batch: the clips; with paired replay the exemplars come last.
            new: outputs of the network in training.
            old: outputs of the frozen network of the previous task, those that `reads` names;
                outputs of exemplars only have fewer rows, which belong to the last clips. None in
                the first task.
            task: the task in training.
        """

    def scores(self, network: Network, batch: Batch) -> Tensor:
        """Return the scores of the classes that `classify = "logits"` predicts by, [B, C].

        Args:
            network: the network, in evaluation mode.
            batch: the clips.
        """
        logits: Tensor = network(batch).logits
        return logits

    def importance(self, network: Network, batch: Batch) -> Tensor:
        """Return what `old.notes["importance"]` is for each clip, [B, ...].

        Only called for methods whose `reads` names it, which must define it.

        Args:
            network: the previous task's network, with the classes of the task added at random.
            batch: the clips.
        """
        raise NotImplementedError

    def after_task(
        self, network: Network, clips: Iterator[Batch], task: Task
    ) -> Mapping[str, Tensor]:
        """Return notes on a finished task for the next ones.

        Args:
            network: the network at its best epoch, in evaluation mode.
            clips: all that the task trained on.
            task: the finished task.

        Returns:
            tensors to keep in the network; `loss` gets them as `old.notes`.
        """
        return {}
