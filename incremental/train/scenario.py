"""The clips of a cache, divided into tasks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from avcil.cache.reader import FeatureStore
from avcil.cache.schema import SPLITS, Split
from avcil.cache.sources import leaks
from avcil.incremental.config.config import Config, derive_seed
from avcil.incremental.data.clips import Replay
from avcil.incremental.data.tasks import class_order, kept_labels, split_tasks
from avcil.incremental.errors import ConfigError

EXAMPLES = 4
"""Number of clips whose attention is saved."""
KEPT_CLIPS = 400
"""Number of test clips whose features are saved, the same of each class."""


class Scenario:
    """Classes in learning order, divided into tasks, and the clips of each class.

    A label is the index of a class in the cache, a position its index in the learning order.
    """

    def __init__(self, config: Config, store: FeatureStore, finished: int = 0) -> None:
        """Divide the classes of a cache into the tasks of a configuration.

        Args:
            config: the configuration.
            store: the cache.
            finished: number of tasks that are trained, whose classes need no training clips.

        Raises:
            ConfigError: the classes do not fit the tasks, or a class has no clips in some split.
        """
        names = store.manifest.classes
        kept = kept_labels(names, config.classes)
        classes = [names[label] for label in kept]
        order = class_order(classes, config.order_seed, config.class_order)
        self.store = store
        self.labels = kept[order]  # by position
        self.positions = np.full(len(names), -1)  # by label; -1 is a class that is left out
        self.positions[self.labels] = np.arange(len(self.labels))
        self.tasks = split_tasks(len(classes), config.tasks, config.first_task, config.task_sizes)
        if config.rule == "nearest-mean" and config.make_method().replay is not Replay.ALL:
            _check_memory(config, len(classes))
        self.leaks = leaks(store.manifest, self.positions[store.manifest.labels] >= 0)  # [N]
        self.validates = True
        """Whether all classes have validation clips."""
        self._rows: dict[tuple[Split, int], NDArray[np.int64]] = {}
        for split in SPLITS:
            rows = store.rows(split)
            labels = store.manifest.labels[rows]
            for position, label in enumerate(self.labels):
                self._rows[split, position] = rows[labels == label]
                if label in labels:
                    continue
                if split == "train" and any(position in task.new for task in self.tasks[:finished]):
                    continue
                if split == "val" and config.select == "last":
                    self.validates = False
                    continue
                raise ConfigError(_lacks(names[label], split))
        if config.few_shot is not None:
            for position in range(self.tasks[0].new.stop, len(classes)):
                rng = np.random.default_rng(derive_seed(config.seed, "few-shot", position))
                shuffled = rng.permutation(self._rows["train", position])
                self._rows["train", position] = np.sort(shuffled[: config.few_shot])

    def rows(self, split: Split, positions: range) -> NDArray[np.int64]:
        """Return the rows of the clips of some classes in the cache, sorted."""
        return np.sort(np.concatenate([self._rows[split, position] for position in positions]))

    def class_names(self) -> list[list[str]]:
        """Return the class names of each task."""
        names = self.store.manifest.classes
        return [[names[self.labels[position]] for position in task.new] for task in self.tasks]

    def example_rows(self) -> NDArray[np.int64]:
        """Return the first test clip of each of the first `EXAMPLES` classes."""
        positions = range(min(EXAMPLES, len(self.labels)))
        return np.array([self._rows["test", position][0] for position in positions], np.int64)

    def kept_rows(self, positions: range) -> NDArray[np.int64]:
        """Return the first test clips of each class, class by class."""
        each = self.kept_clips
        return np.concatenate([self._rows["test", position][:each] for position in positions])

    @property
    def kept_clips(self) -> int:
        """Number of test clips of each class whose features are saved."""
        return max(1, KEPT_CLIPS // len(self.labels))

    def clips_to_test(self) -> list[int]:
        """Return the number of test clips of each task."""
        return [len(self.rows("test", task.new)) for task in self.tasks]

    def leak_free_clips_to_test(self) -> list[int]:
        """Return the number of test clips of each task that do not leak; empty if none leaks."""
        if not self.leaks.any():
            return []
        return [int((~self.leaks[self.rows("test", task.new)]).sum()) for task in self.tasks]


def _lacks(name: str, split: Split) -> str:
    """Return the message about a class without clips of a split."""
    last = "train without validation (--select last), or " if split == "val" else ""
    return (
        f"class {name!r} has no {split} clip in the cache: {last}leave the class out with a file "
        "of the classes to learn (--classes FILE)"
    )


def _check_memory(config: Config, classes: int) -> None:
    """Refuse a memory in which a class has no exemplar whose mean could be nearest."""
    least = 1 if config.memory_per_class else classes
    if config.memory < least:
        raise ConfigError(
            f"{config.method['name']} predicts by the mean of each class's exemplars: a memory of "
            f"{config.memory} leaves classes without any; give --memory {least} or more"
        )
