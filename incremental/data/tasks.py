"""Tasks, and the order in which classes are learned.

A label is the index of a class in the cache, a position its index in the learning order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avcil.cache.names import code_points
from avcil.incremental.errors import ConfigError
from avcil.runtime.files import read_text


@dataclass(frozen=True, slots=True)
class Task:
    """Classes that are learned together, as ranges of positions."""

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


def split_tasks(
    classes: int,
    tasks: int,
    first_task: int | None = None,
    sizes: Sequence[int] | None = None,
) -> list[Task]:
    """Divide the learning order into tasks of equal size; the last one takes the remainder.

    Args:
        classes: number of classes.
        tasks: number of tasks.
        first_task: number of classes in the first task, if it differs from the others.
        sizes: instead of `first_task`, the number of classes in every task.

    Raises:
        ConfigError: a task would be empty, or the sizes do not fit.
    """
    if sizes is not None:
        if sum(sizes) != classes or len(sizes) != tasks or min(sizes) < 1 or first_task is not None:
            raise ConfigError(
                f"task_sizes {list(sizes)} must be {tasks} positive numbers that add up to "
                f"{classes} classes, without first_task"
            )
        starts = np.cumsum([0, *sizes]).tolist()
        return _tasks([range(a, b) for a, b in pairwise(starts)])
    first = first_task if first_task is not None else classes // max(tasks, 1)
    size = (classes - first) // (tasks - 1) if tasks > 1 else classes
    if tasks < 1 or first < 1 or size < 1:
        raise ConfigError(
            f"{classes} classes cannot make {tasks} tasks"
            + (f" with {first_task} classes in the first" if first_task is not None else "")
            + f": choose tasks between 1 and {classes}"
        )
    if tasks == 1 and first != classes:
        raise ConfigError(
            f"a single task learns all {classes} classes: a first task of {first_task} needs more "
            "tasks, or no first_task"
        )
    starts = [0, *(first + size * i for i in range(tasks - 1))]
    blocks = [range(a, b) for a, b in zip(starts, [*starts[1:], classes], strict=True)]
    return _tasks(blocks)


def _tasks(blocks: Sequence[range]) -> list[Task]:
    return [Task(i, block, tuple(blocks[:i])) for i, block in enumerate(blocks)]


def kept_labels(classes: Sequence[str], names: Sequence[str] | None) -> NDArray[np.int64]:
    """Return the labels of the classes to learn, in the order of the cache.

    Args:
        classes: class names in the order of the cache.
        names: the classes to keep, in any order; None keeps all.

    Raises:
        ConfigError: a name is unknown or there twice, or there is none.
    """
    if names is None:
        return np.arange(len(classes))
    unknown = sorted(set(names) - set(classes))
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if not names:
        raise ConfigError("the list of classes to learn is empty: name one class per line")
    if unknown or twice:
        every = {*classes, *names}
        raise ConfigError(
            "the list of classes to learn must name classes of the cache, each once; "
            f"unknown: {_spelled(unknown, every)}, named more than once: {_spelled(twice, every)}"
        )
    return np.array([label for label, name in enumerate(classes) if name in set(names)], np.int64)


def class_order(
    classes: Sequence[str], order_seed: int | None = None, names: Sequence[str] | None = None
) -> NDArray[np.int64]:
    """Return the label at each position of the learning order, [C].

    Args:
        classes: class names in the order of the cache, which is the default.
        order_seed: shuffles the classes.
        names: all class names in learning order.

    Raises:
        ConfigError: both are given, or `names` is not a permutation of `classes`.
    """
    if names is not None and order_seed is not None:
        raise ConfigError("give either a class order file or an order seed, not both")
    if order_seed is not None:
        return np.random.default_rng(order_seed).permutation(len(classes))
    if names is None:
        return np.arange(len(classes))
    missing, surplus = sorted(set(classes) - set(names)), sorted(set(names) - set(classes))
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if missing or surplus or twice:
        problems = {"missing": missing, "unknown": surplus, "named more than once": twice}
        every = {*classes, *names}
        raise ConfigError(
            f"the class order must name each of the {len(classes)} classes once; "
            + ", ".join(f"{what}: {_spelled(found, every)}" for what, found in problems.items())
        )
    labels = {name: label for label, name in enumerate(classes)}
    return np.array([labels[name] for name in names], dtype=np.int64)


def _spelled(names: Sequence[str], others: Collection[str]) -> str:
    """Return the first names, by code points too where another name looks the same."""
    shown = ", ".join(f"{name!r}{code_points(name, others)}" for name in names[:5])
    return f"[{shown}{', ...' if len(names) > 5 else ''}]"


def read_class_names(path: Path) -> list[str]:
    """Read class names, one per line.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        lines = read_text(path).splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read class names from {path}: {error.strerror}") from error
    except UnicodeError as error:
        raise ConfigError(f"cannot read class names from {path}: {error}") from error
    return [line.strip() for line in lines if line.strip()]
