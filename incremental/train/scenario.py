"""The clips of a cache, laid out as tasks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from avcil.cache.reader import FeatureStore
from avcil.cache.schema import SPLITS, Split
from avcil.cache.sources import leaks
from avcil.incremental.config.config import Config, derive_seed
from avcil.incremental.data.tasks import class_order, split_tasks
from avcil.incremental.errors import ConfigError

EXAMPLES = 4
"""Clips whose attention is kept."""


class Curriculum:
    """The clips of a cache in learning order: classes by position, tasks as ranges of them."""

    def __init__(self, config: Config, store: FeatureStore) -> None:
        """Lay the tasks of a configuration over a cache.

        Raises:
            ConfigError: the classes do not fit the tasks, or a class lacks clips of some split.
        """
        classes = store.manifest.classes
        self.store = store
        self.labels = class_order(classes, config.order_seed, config.class_order)  # by position
        self.positions = np.argsort(self.labels)  # by label
        self.tasks = split_tasks(len(classes), config.tasks, config.first_task)
        self._rows = self._sort_rows(config)
        self.leaks = leaks(store.manifest)  # [N]
        for (split, position), rows in self._rows.items():
            if not len(rows):
                raise ConfigError(
                    f"class {classes[self.labels[position]]!r} has no {split} clip in the cache: "
                    "every class needs clips to train, validate and test on"
                )

    def rows(self, split: Split, positions: range) -> NDArray[np.int64]:
        """Return the rows of some classes, sorted."""
        return np.sort(np.concatenate([self._rows[split, position] for position in positions]))

    def _sort_rows(self, config: Config) -> dict[tuple[Split, int], NDArray[np.int64]]:
        """Return the rows of each split and class position."""
        result: dict[tuple[Split, int], NDArray[np.int64]] = {}
        for split in SPLITS:
            rows = self.store.rows(split)
            labels = self.store.manifest.labels[rows]
            for position, label in enumerate(self.labels):
                result[split, position] = rows[labels == label]
        for position in range(self.tasks[0].new.stop, len(self.labels)):
            result["train", position] = _few(result["train", position], config, position)
        return result

    def class_names(self) -> list[list[str]]:
        """Return the class names of each task."""
        names = self.store.manifest.classes
        return [[names[self.labels[position]] for position in task.new] for task in self.tasks]

    def example_rows(self) -> NDArray[np.int64]:
        """Return the first test clip of each of the first classes, at most `EXAMPLES`."""
        positions = range(min(EXAMPLES, len(self.labels)))
        return np.array([self._rows["test", position][0] for position in positions], np.int64)

    def clips_to_test(self) -> list[int]:
        """Return the number of test clips of each task."""
        return [len(self.rows("test", task.new)) for task in self.tasks]

    def leak_free_clips_to_test(self) -> list[int]:
        """Return the same without test clips that leak; empty where none does."""
        if not self.leaks.any():
            return []
        return [int((~self.leaks[self.rows("test", task.new)]).sum()) for task in self.tasks]


def _few(rows: NDArray[np.int64], config: Config, position: int) -> NDArray[np.int64]:
    """Return the training clips that few-shot learning keeps of a class, drawn by the seed."""
    if config.few_shot is None:
        return rows
    rng = np.random.default_rng(derive_seed(config.seed, "few-shot", position))
    return np.sort(rng.permutation(rows)[: config.few_shot])
