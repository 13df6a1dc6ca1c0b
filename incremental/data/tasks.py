"""Which classes are learned when.

A position is a class's place in the learning order; a label is its place in the cache's class list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avcil.incremental.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Task:
    """A group of classes that is learned together, as ranges of positions."""

    index: int
    new: range
    """Classes of this task."""
    earlier: tuple[range, ...]
    """Classes of each earlier task."""

    @property
    def old(self) -> range:
        """Classes of all earlier tasks."""
        return range(self.new.start)

    @property
    def seen(self) -> range:
        """Classes of this task and all earlier ones."""
        return range(self.new.stop)


def split_tasks(classes: int, tasks: int, first_task: int | None = None) -> list[Task]:
    """Cut the learning order into tasks of equal size; the last one takes the remainder.

    Args:
        classes: number of classes.
        tasks: number of tasks.
        first_task: classes of the first task, where it differs from the others.

    Raises:
        ConfigError: a task would be empty.
    """
    first = first_task if first_task is not None else classes // max(tasks, 1)
    size = (classes - first) // (tasks - 1) if tasks > 1 else classes
    if tasks < 1 or first < 1 or size < 1:
        raise ConfigError(
            f"{classes} classes cannot make {tasks} tasks"
            + (f" with {first_task} classes in the first" if first_task is not None else "")
            + f": choose tasks between 1 and {classes}"
        )
    starts = [0, *(first + size * i for i in range(tasks - 1))]
    blocks = [range(a, b) for a, b in zip(starts, [*starts[1:], classes], strict=True)]
    return [Task(i, block, tuple(blocks[:i])) for i, block in enumerate(blocks)]


def class_order(
    classes: Sequence[str], order_seed: int | None = None, names: Sequence[str] | None = None
) -> NDArray[np.int64]:
    """Return the label at each position of the learning order, [C].

    Args:
        classes: class names of the cache; their order is the default.
        order_seed: shuffles the classes.
        names: the learning order itself, each class once.

    Raises:
        ConfigError: both are given, or `names` is no permutation of `classes`.
    """
    if names is not None and order_seed is not None:
        raise ConfigError("give either a class order file or an order seed, not both")
    if names is not None:
        return _named_order(classes, names)
    if order_seed is not None:
        return np.random.default_rng(order_seed).permutation(len(classes))
    return np.arange(len(classes))


def _named_order(classes: Sequence[str], names: Sequence[str]) -> NDArray[np.int64]:
    missing, surplus = sorted(set(classes) - set(names)), sorted(set(names) - set(classes))
    if missing or surplus or len(names) != len(classes):
        raise ConfigError(
            f"the class order must name each of the {len(classes)} classes once; "
            f"missing: {missing[:5]}, unknown: {surplus[:5]}, names given: {len(names)}"
        )
    place = {name: label for label, name in enumerate(classes)}
    return np.array([place[name] for name in names], dtype=np.int64)


def read_class_order(path: Path) -> list[str]:
    """Read class names, one a line, in learning order."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read the class order {path}: {error.strerror}") from error
    return [line.strip() for line in lines if line.strip()]
