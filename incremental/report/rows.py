"""Runs to rows: what belongs together, what it is called, and its mean and deviation.

A row is all runs that differ in nothing but the seed and the class order: both are chance as far as
a method is concerned, so both belong to the deviation. A benchmark is all rows that were measured
on the same cache in the same number of tasks: only those may stand in one table.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from avcil.incremental.results import AccuracyMatrix, CacheIdentity, Run

CHANCE = frozenset({"seed", "order_seed", "class_order"})
"""Fields of a configuration that make another run of the same row."""
UPPER_BOUND = "joint"
"""This method sees all clips of all tasks again: a bound to compare with, not a competitor."""
LOSSES = "losses."
OF_THE_CACHE = frozenset({"dataset", "fingerprint", "rows"})
"""Fields of a configuration that say which cache; the benchmark names it, so labels do not."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean and sample deviation of one figure over runs, in per cent."""

    mean: float
    deviation: float | None
    """With n - 1 in the denominator; None for a single run."""
    count: int


def summarise(values: Sequence[float]) -> Summary:
    """Return mean and deviation of fractions, in per cent."""
    percents = [100 * value for value in values]
    deviation = statistics.stdev(percents) if len(percents) > 1 else None
    return Summary(statistics.fmean(percents), deviation, len(percents))


Settings: TypeAlias = Mapping[str, Any]
"""A configuration without nesting: {"losses.kd": 1.0, "method.name": "guided", ...}."""
Chance: TypeAlias = tuple[int, tuple[str, ...]]
"""What tells the runs of a row apart: the seed and the order of the classes."""


@dataclass(frozen=True)
class Row:
    """Runs that differ in chance only."""

    runs: Sequence[Run]
    settings: Settings
    label: str = ""
    """Method, and what tells this row from the others of its benchmark."""

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self.settings["method.name"])

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
        """True for the default head, and for the head that method or modality brings."""
        return self.head in {"guided", self.method, self.modality}

    @property
    def switched_off(self) -> tuple[str, ...]:
        """Loss terms of weight 0."""
        terms = (name for name in self.settings if name.startswith(LOSSES))
        return tuple(name.removeprefix(LOSSES) for name in terms if self.settings[name] == 0)

    @property
    def competes(self) -> bool:
        """False for the upper bound."""
        return self.method != UPPER_BOUND

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
    def validation(self) -> float:
        """Mean validation accuracy over steps and runs: what a choice between rows may look at."""
        return statistics.fmean(
            statistics.fmean(run.results.validation_accuracy or [0.0]) for run in self.runs
        )

    @cached_property
    def leak_free(self) -> Summary | None:
        """Mean accuracy on test clips that do not leak, per cent; None unless every run has it."""
        matrices = [run.results.leak_free for run in self.runs]
        values = [matrix.mean_accuracy for matrix in matrices if matrix]
        return summarise(values) if len(values) == len(matrices) else None


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Rows that may be compared: one cache, one number of tasks."""

    cache: CacheIdentity
    sizes: tuple[int, ...]
    """[T] classes of each task."""
    rows: list[Row]
    """Best mean accuracy first."""

    @property
    def protocol(self) -> str:
        """The tasks in words: `5 tasks of 2 classes`."""
        fewest, most = min(self.sizes), max(self.sizes)
        each = str(most) if fewest == most else f"{fewest} to {most}"
        tasks = "1 task" if len(self.sizes) == 1 else f"{len(self.sizes)} tasks"
        return f"{tasks} of {each} classes"


def details(row: Row) -> str:
    """Return what a label adds to the name of the method: `, memory=20`, or nothing."""
    return row.label.removeprefix(short_name(row))


def class_order(run: Run) -> tuple[str, ...]:
    """Return the classes of a run in learning order."""
    return tuple(name for task in run.results.tasks for name in task)


def chance(run: Run) -> Chance:
    """Return what tells a run from the others of its row."""
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


_Protocol: TypeAlias = tuple[CacheIdentity, str, tuple[int, ...]]
"""The cache, its list of clips, and the classes of each task: what runs must share to compare."""


def benchmarks(runs: Iterable[Run]) -> tuple[list[Benchmark], list[str]]:
    """Group runs into benchmarks of rows.

    Returns:
        The benchmarks by dataset, encoder and number of tasks, and one line for every run that is
        left out because another run of the same row, seed and class order is counted already.
    """
    groups: dict[_Protocol, list[Run]] = defaultdict(list)
    for run in runs:
        sizes = tuple(len(task) for task in run.results.tasks)
        groups[run.results.cache, str(run.config.get("rows")), sizes].append(run)
    repeats: list[str] = []
    found = [
        Benchmark(cache, sizes, _rows(group, repeats))
        for (cache, _, sizes), group in groups.items()
    ]
    return sorted(found, key=_benchmark_order), repeats


def _benchmark_order(found: Benchmark) -> tuple[object, ...]:
    cache = found.cache
    return cache.dataset, cache.encoder, cache.fingerprint, cache.clips, len(found.sizes)


def _rows(runs: Iterable[Run], repeats: list[str]) -> list[Row]:
    groups: dict[str, dict[Chance, Run]] = defaultdict(dict)
    settings: dict[str, Settings] = {}
    for run in runs:
        kept = {name: value for name, value in run.config.items() if name not in CHANCE}
        key = json.dumps(kept, sort_keys=True)
        first = groups[key].setdefault(chance(run), run)
        if first is not run:
            repeats.append(f"{run.folder} repeats {first.folder}, same settings, seed and order")
        settings.setdefault(key, flatten(kept))
    rows = [Row(list(group.values()), settings[key]) for key, group in groups.items()]
    return sorted(named(rows), key=lambda row: (-row.accuracy.mean, row.label))


def named(rows: Sequence[Row]) -> list[Row]:
    """Label each row by its method, and by what is unusual among the rows of that name."""
    groups = _by_name(rows)
    labelled: list[Row] = []
    for row in rows:
        name = short_name(row)
        usual = usual_settings(groups[name])
        details = [_spell(key, row.settings, usual) for key in _differences(groups[name])]
        label = ", ".join([name, *(detail for detail in details if detail)])
        labelled.append(Row(row.runs, row.settings, label))
    return labelled


def usual_settings(rivals: Sequence[Row]) -> Settings:
    """Return the settings that differ among rows, as far as one value is more usual than others.

    Labels leave these values out. A loss is usual where it is on.
    """
    usual: dict[str, Any] = {}
    for name in _differences(rivals):
        values = [row.settings.get(name) for row in rivals]
        if name.startswith(LOSSES):
            values = [value for value in values if value]
        ranked = Counter(map(json.dumps, values)).most_common(2)
        if len(ranked) == 1 or ranked[0][1] > ranked[1][1]:
            usual[name] = json.loads(ranked[0][0])
    return usual


def unsaid(rows: Sequence[Row]) -> list[str]:
    """Return, for each name that several rows share, the usual settings that labels leave out."""
    usual = {name: usual_settings(rivals) for name, rivals in _by_name(rows).items()}
    return [
        f"{name} with {', '.join(f'{key}={value}' for key, value in settings.items())}"
        for name, settings in usual.items()
        if settings
    ]


def _by_name(rows: Iterable[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[short_name(row)].append(row)
    return groups


def _spell(name: str, settings: Settings, usual: Settings) -> str:
    """Return a setting as it reads in a label; nothing for the usual value."""
    value = settings.get(name)
    if name in usual and usual[name] == value:
        return ""
    if name.startswith(LOSSES) and value == 0:
        return f"without {name.removeprefix(LOSSES)}"
    return f"{name}={value}"


def short_name(row: Row) -> str:
    """Return the method with its modality and head where those are not the usual ones."""
    extras = [row.modality] if row.modality != "av" else []
    if not row.usual_head:
        extras.append(f"{row.head} head")
    return f"{row.method} ({', '.join(extras)})" if extras else row.method


def _differences(rivals: Sequence[Row]) -> list[str]:
    """Return the names of the settings that are not the same in all rows."""
    names = {name for row in rivals for name in row.settings} - OF_THE_CACHE
    return [
        name
        for name in sorted(names)
        if len({json.dumps(row.settings.get(name)) for row in rivals}) > 1
    ]
