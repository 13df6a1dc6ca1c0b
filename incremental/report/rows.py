"""Rows and benchmarks: which runs belong together, and their mean and standard deviation.

A row is all runs that differ only in seed and class order: both are random to a method, so both
count in the standard deviation. A benchmark is all rows that were measured on the same clips of one
cache in the same tasks: only these are compared in one table.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, TypeAlias

from avcil.incremental.options import BASELINES_HEAD, DEFAULT_HEAD
from avcil.incremental.runs.facts import MethodFacts, facts_without_a_run
from avcil.incremental.runs.matrix import AccuracyMatrix
from avcil.incremental.runs.results import CacheIdentity, Run

CHANCE = frozenset({"seed", "order_seed", "class_order"})
"""Fields of a configuration that make another run of the same row."""
LOSSES = "losses."
OF_THE_PAPER = " (the paper)"
"""What the title of the paper's own method ends with; `tables.paper` says when it may be shown."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean and sample deviation of one figure over runs, in per cent; NaN where there is none."""

    mean: float
    deviation: float | None
    """With n - 1 in the denominator; None for a single run."""
    count: int


def summarise(values: Sequence[float]) -> Summary:
    """Return mean and deviation of fractions, in per cent."""
    percents = [100 * value for value in values]
    several = len(percents) > 1 and not any(map(math.isnan, percents))
    deviation = statistics.stdev(percents) if several else None
    return Summary(statistics.fmean(percents), deviation, len(percents))


Settings: TypeAlias = Mapping[str, Any]
"""A configuration without nesting: {"losses.kd": 1.0, "method.name": "guided", ...}."""
Chance: TypeAlias = tuple[int, tuple[str, ...]]
"""What distinguishes the runs of a row: the seed and the order of the classes."""


@dataclass(frozen=True)
class Row:
    """Runs that differ in chance only."""

    runs: Sequence[Run]
    settings: Settings
    label: str = ""
    """The method, and what distinguishes the row from the others of its benchmark."""

    @property
    def digest(self) -> str:
        """Of all settings: the same wherever the row stands, unlike its label."""
        text = json.dumps(dict(self.settings), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self.settings["method.name"])

    @property
    def title(self) -> str:
        """Name of the method as a paper prints it."""
        return self.facts.title.removesuffix(OF_THE_PAPER)

    @property
    def called(self) -> str:
        """The method in a label: its name, or the title of a plug-in."""
        return self.title if "method.source" in self.settings else self.method

    @property
    def name(self) -> str:
        """The label with the title of the method: for figures, the page and LaTeX."""
        return self.title + self.label.removeprefix(self.called)

    @property
    def facts(self) -> MethodFacts:
        """What the method says of itself."""
        return self.runs[0].results.method or facts_without_a_run(self.method)

    @property
    def head(self) -> str:
        """Name of the head."""
        return str(self.settings["head.name"])

    @property
    def modality(self) -> str:
        """`av`, `audio` or `visual`."""
        return str(self.settings["modality"])

    @property
    def usual_head(self) -> bool:
        """True for the default head, and for that of the method or modality."""
        return self.head in {DEFAULT_HEAD, self.modality, self.facts.head}

    @property
    def ablated(self) -> bool:
        """True where a part was taken away: a modality, a loss, or the method's kind of head.

        Methods that are not made for the default head may run on that of the published baselines.
        """
        heads = {DEFAULT_HEAD, self.facts.head}
        if self.facts.head != DEFAULT_HEAD:
            heads.add(BASELINES_HEAD)
        return self.modality != "av" or self.head not in heads or bool(self.switched_off)

    @property
    def switched_off(self) -> tuple[str, ...]:
        """Loss terms of weight 0."""
        terms = (name for name in self.settings if name.startswith(LOSSES))
        return tuple(name.removeprefix(LOSSES) for name in terms if self.settings[name] == 0)

    @property
    def competes(self) -> bool:
        """False for an upper bound."""
        return not self.facts.upper_bound

    @property
    def seeds(self) -> int:
        """Number of different seeds."""
        return len({run.config["seed"] for run in self.runs})

    @property
    def orders(self) -> int:
        """Number of different class orders."""
        return len({class_order(run) for run in self.runs})

    def summary(self, figure: Callable[[AccuracyMatrix], float]) -> Summary:
        """Return mean and deviation of a figure of the accuracy matrix, in per cent."""
        return summarise([figure(run.results.matrix) for run in self.runs])

    @cached_property
    def accuracy(self) -> Summary:
        """Mean accuracy, per cent."""
        return self.summary(lambda matrix: matrix.mean_accuracy)

    @cached_property
    def forgetting(self) -> Summary:
        """Average forgetting, percentage points; NaN for a single task."""
        return self.summary(lambda matrix: matrix.average_forgetting)

    @cached_property
    def last(self) -> Summary:
        """Accuracy after the last task, per cent."""
        return self.summary(lambda matrix: matrix.last_accuracy)

    @cached_property
    def validation(self) -> float:
        """Mean validation accuracy over steps and runs: what a choice between rows may look at."""
        return statistics.fmean(
            statistics.fmean(run.results.validation_accuracy or [0.0]) for run in self.runs
        )

    @cached_property
    def leak_free(self) -> Summary | None:
        """Mean accuracy on test clips that do not leak, per cent; None unless every run has it.

        A run lacks it where all test clips leak of the first task.
        """
        matrices = [run.results.leak_free for run in self.runs]
        values = [matrix.mean_accuracy for matrix in matrices if matrix and matrix.total[0]]
        return summarise(values) if len(values) == len(matrices) else None


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Rows that may be compared: one cache, one list of its clips, one split into tasks."""

    cache: CacheIdentity
    sizes: tuple[int, ...]
    """[T] classes of each task."""
    rows: list[Row]
    """Best mean accuracy first."""
    rows_digest: str = ""
    """Of the list of clips; the rows here are the cache's. Empty where runs do not say."""
    clips: str = ""
    """The list of clips in words, where another benchmark has another list of the same cache."""

    @property
    def protocol(self) -> str:
        """The tasks in words, `5 tasks of 2 classes`; never the same for other sizes."""
        fewest, most = min(self.sizes), max(self.sizes)
        tasks = "1 task" if len(self.sizes) == 1 else f"{len(self.sizes)} tasks"
        if fewest == most:
            return f"{tasks} of {most} {'class' if most == 1 else 'classes'}"
        return f"{tasks} of {fewest} to {most} classes ({spell_sizes(self.sizes)})"


def spell_sizes(sizes: Sequence[int]) -> str:
    """Return the classes of each task in short: `2x10+9` for 10, 10 and 9."""
    counts = [(size, len(list(same))) for size, same in groupby(sizes)]
    return "+".join(f"{count}x{size}" if count > 1 else str(size) for size, count in counts)


def class_order(run: Run) -> tuple[str, ...]:
    """Return the classes of a run in learning order."""
    return tuple(name for task in run.results.tasks for name in task)


def chance(run: Run) -> Chance:
    """Return what distinguishes a run from the others of its row."""
    return int(run.config["seed"]), class_order(run)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested configuration with dotted names, in sorted order."""
    flat: dict[str, Any] = {}
    for name in sorted(config):
        value = config[name]
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
