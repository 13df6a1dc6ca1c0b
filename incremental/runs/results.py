"""Results of a run: the accuracy matrix, its metrics, and the run folder. Without torch.

A run folder holds `config.json` (the resolved configuration), `results.json` (this module's
`Results`), `metrics.jsonl` (one line per epoch) and the weights of each task.

Shapes: T tasks. Accuracies lie in [0, 1]; only reports show percentages.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from avcil.incremental.errors import RunDamaged
from avcil.incremental.options import RENAMED_METHODS
from avcil.incremental.runs.facts import MethodFacts
from avcil.runtime.files import replace_file

FORMAT = 1


@dataclass(frozen=True, eq=False)
class AccuracyMatrix:
    """Correct predictions on the test clips of each task, after learning each task."""

    correct: Sequence[Sequence[int]]
    """[k][i] for i <= k: clips of task i correct after task k, among all classes seen."""
    total: Sequence[int]
    """[T] test clips of each task."""

    def __post_init__(self) -> None:
        """Reject a matrix that is not triangular, or that counts more clips than there are."""
        for step, row in enumerate(self.correct):
            if len(row) != step + 1 or step >= len(self.total):
                raise ValueError(f"row {step} has {len(row)} entries for {len(self.total)} tasks")
            if any(not 0 <= n <= total for n, total in zip(row, self.total, strict=False)):
                raise ValueError(f"row {step}, {list(row)}, exceeds the counts {list(self.total)}")

    @cached_property
    def by_task(self) -> list[list[float]]:
        """Accuracy a[k][i] on task i after task k; NaN for a task without test clips."""
        return [
            [_share(n, total) for n, total in zip(row, self.total, strict=False)]
            for row in self.correct
        ]

    @cached_property
    def by_step(self) -> list[float]:
        """Accuracy A[k] after task k, over all test clips of all classes seen; NaN without any."""
        return [_share(sum(row), sum(self.total[: len(row)])) for row in self.correct]

    @property
    def mean_accuracy(self) -> float:
        """Mean of A[k] over all steps, the first included.

        Source: Pian et al., AV-CIL, ICCV 2023, section 5.1.
        """
        return _mean(self.by_step)

    @cached_property
    def forgetting_by_step(self) -> list[float]:
        """Forgetting F[k] for k >= 1: mean over earlier tasks of best earlier minus present.

        The best is taken over the steps before k, so F[k] is negative where old tasks improve.

        Source: Pian et al., AV-CIL, ICCV 2023, section 5.1.
        """
        a = self.by_task
        return [
            _mean([max(a[step][i] for step in range(i, k)) - a[k][i] for i in range(k)])
            for k in range(1, len(a))
        ]

    @property
    def average_forgetting(self) -> float:
        """Mean of F[k] over k >= 1; NaN for a single task."""
        return _mean(self.forgetting_by_step)

    @property
    def last_accuracy(self) -> float:
        """Accuracy after the last task."""
        return self.by_step[-1]

    @property
    def anytime_accuracy(self) -> float:
        """Mean over k of the mean of a[k][i] over i <= k: all tasks weigh the same at each step.

        Source: Caccia et al., New Insights on Reducing Abrupt Representation Change in Online
        Continual Learning, ICLR 2022, "average anytime accuracy".
        """
        return _mean([_mean(row) for row in self.by_task])

    @property
    def old_accuracy(self) -> float:
        """Mean over k >= 1 of the accuracy on all clips of earlier tasks; NaN for a single task."""
        steps = range(1, len(self.correct))
        return _mean([_share(sum(self.correct[k][:k]), sum(self.total[:k])) for k in steps])

    @property
    def new_accuracy(self) -> float:
        """Mean over k >= 1 of a[k][k], right after learning task k; NaN for a single task."""
        return _mean([row[-1] for row in self.by_task[1:]])

    @property
    def forgetting_including_last(self) -> float:
        """Forgetting after the last task, the best taken over all steps: never negative.

        Source: Chaudhry et al., Riemannian Walk, ECCV 2018, as PyCIL and Mammoth compute it.
        """
        return _mean([max(column) - column[-1] for column in self._columns()])

    @property
    def first_minus_last(self) -> float:
        """Mean over earlier tasks of a[i][i] - a[T-1][i], as Avalanche computes forgetting."""
        return _mean([column[0] - column[-1] for column in self._columns()])

    def forward_transfer(self, alone: Sequence[float]) -> float:
        """Mean over i >= 1 of a[i][i] - alone[i]: how much earlier tasks help to learn a new one.

        The form of Lopez-Paz and Ranzato, accuracy on a task before it is learned, is not defined
        for a classifier that has no output for classes to come.

        Args:
            alone: [T] accuracy on the clips of task i of a network that learned all classes up to
                task i at once, from scratch: a[i][i] of the method `joint`.

        Source: Chaudhry et al., Riemannian Walk, ECCV 2018, section 4.2: minus the intransigence.
        """
        pairs = zip(self.by_task, alone, strict=True)
        return _mean([row[-1] - reference for row, reference in pairs][1:])

    def _columns(self) -> list[list[float]]:
        """Return the accuracies on each task but the last, from the step that learned it on."""
        a = self.by_task
        return [[row[i] for row in a[i:]] for i in range(len(a) - 1)]

    @property
    def backward_transfer(self) -> float:
        """BWT: mean over earlier tasks of a[T-1][i] - a[i][i].

        Source: Lopez-Paz and Ranzato, GEM, NeurIPS 2017.
        """
        a = self.by_task
        return _mean([a[-1][i] - a[i][i] for i in range(len(a) - 1)])


def _share(count: int, total: int) -> float:
    return count / total if total else float("nan")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheIdentity:
    """The cache that a run was trained on."""

    dataset: str
    encoder: str
    fingerprint: str
    random_weights: bool
    clips: int


@dataclass(kw_only=True, slots=True)
class Results:
    """Results of a run so far; lists grow by one entry per task."""

    cache: CacheIdentity
    tasks: list[list[str]]
    """[T] class names of each task, in learning order."""
    total: list[int]
    """[T] test clips of each task."""
    correct: list[list[int]] = field(default_factory=list)
    """[k][i] as in `AccuracyMatrix`."""
    validation_accuracy: list[float] = field(default_factory=list)
    """[k] over all classes seen, at the chosen epoch of task k; empty without validation clips."""
    best_epochs: list[int] = field(default_factory=list)
    """[k] chosen epoch of task k, counted from 0."""
    exemplars: list[list[str]] = field(default_factory=list)
    """[k] ids of the clips in memory after task k."""
    seconds: list[float] = field(default_factory=list)
    """[k] spent on task k, evaluation included."""
    versions: dict[str, str] = field(default_factory=dict)
    resumed: list[dict[str, Any]] = field(default_factory=list)
    """Changes of `versions` when the run was resumed: `task`, counted from 1, and what changed."""
    method: MethodFacts | None = None
    """Facts about the method; None in folders of version 0.1.0."""
    confusion: list[list[int]] = field(default_factory=list)
    """[true class][predicted class] test clips after the last task, classes in learning order."""
    leak_free_total: list[int] = field(default_factory=list)
    """[T] test clips of each task that share no source video with a training clip."""
    leak_free_correct: list[list[int]] = field(default_factory=list)
    """[k][i] as `correct`, of those clips; empty where no clip leaks."""

    @property
    def complete(self) -> bool:
        """True when every task is learned and evaluated."""
        return len(self.correct) == len(self.tasks)

    @property
    def matrix(self) -> AccuracyMatrix:
        """The accuracy matrix of the tasks done so far."""
        return AccuracyMatrix(self.correct, self.total)

    @property
    def leak_free(self) -> AccuracyMatrix | None:
        """The accuracy matrix without leaking test clips; None where it was not counted."""
        if len(self.leak_free_correct) < len(self.correct):
            return None
        return AccuracyMatrix(self.leak_free_correct, self.leak_free_total)


@dataclass(frozen=True, kw_only=True, slots=True)
class Epoch:
    """One line of `metrics.jsonl`."""

    task: int
    epoch: int
    lr: float
    seconds: float
    validation_accuracy: float | None
    losses: dict[str, float]
    """Mean of each term over the batches of the epoch, unweighted."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder that was read."""

    folder: Path
    config: dict[str, Any]
    results: Results
    videos: Path | None = None
    """A folder of the clips, for a reader who has them elsewhere than they were at training."""


def write_results(folder: Path, results: Results) -> None:
    """Replace `results.json` in one step."""
    stored = asdict(results)
    if not results.resumed:
        del stored["resumed"]
    write_json(folder / "results.json", {"format": FORMAT, **stored})


def write_json(path: Path, value: object) -> None:
    """Replace a JSON file in one step: a reader sees either the old text or the new one."""
    replace_file(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode())


def read_run(folder: Path) -> Run:
    """Read one run folder, finished or not.

    Raises:
        RunDamaged: a file is missing, truncated, of another version, or inconsistent.
    """
    try:
        config = dict(json.loads((folder / "config.json").read_text("utf-8")))
        if (name := config.get("method", {}).get("name")) in RENAMED_METHODS:
            config["method"]["name"] = RENAMED_METHODS[name]
        if not (folder / "results.json").exists():
            raise RunDamaged(
                f"{folder} has no results yet: run its `avcil train` command again to finish it"
            )
        stored = json.loads((folder / "results.json").read_text("utf-8"))
        found = stored.pop("format", None)
        if found != FORMAT:
            raise RunDamaged(f"{folder} holds run format {found!r}, this version reads {FORMAT}")
        cache = CacheIdentity(**stored.pop("cache"))
        said = stored.pop("method", None)
        results = Results(cache=cache, method=MethodFacts(**said) if said else None, **stored)
        _check(results)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, RunDamaged):
            raise
        raise RunDamaged(
            f"{folder} is not a readable run ({error}): delete it to train it again"
        ) from error
    return Run(folder, config, results)


def _check(results: Results) -> None:
    """Raise ValueError or TypeError for results that no run writes."""
    classes = [name for task in results.tasks for name in task]
    done = len(results.correct)
    leak_free = len(results.tasks) if results.leak_free_correct else len(results.leak_free_total)
    problems = {
        "cache": [type(value) for value in asdict(results.cache).values()]
        != [str, str, str, bool, int],
        "method": results.method is not None
        and [type(value) for value in asdict(results.method).values()] != [str, bool, str],
        "resumed": not all(type(change.get("task")) is int for change in results.resumed),
        "tasks": not all(isinstance(name, str) for name in classes),
        "total": not _counts(results.total, len(results.tasks), least=1),
        "correct": not all(_counts(row, k) for k, row in enumerate(results.correct, start=1)),
        "validation_accuracy": results.validation_accuracy != []
        and not _numbers(results.validation_accuracy, done),
        "seconds": not _numbers(results.seconds, done),
        "exemplars": not all(isinstance(clips, list) for clips in results.exemplars),
        "confusion": not _square(results.confusion, len(classes)),
        "leak_free_total": not _counts(results.leak_free_total, leak_free),
    }
    wrong = [name for name, problem in problems.items() if problem]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} does not fit {len(results.tasks)} tasks, {done} done")
    _ = results.matrix, results.leak_free  # check the counts themselves


def _numbers(values: Sequence[object], count: int) -> bool:
    return len(values) == count and all(type(value) in (int, float) for value in values)


def _counts(values: Sequence[object], count: int, least: int = 0) -> bool:
    return len(values) == count and all(type(n) is int and n >= least for n in values)


def _square(rows: Sequence[Sequence[object]], size: int) -> bool:
    """Tell whether rows of counts have the shape [size, size], or are absent."""
    return not rows or (len(rows) == size and all(_counts(row, size) for row in rows))


def read_metrics(folder: Path) -> list[Epoch]:
    """Read the metrics of each epoch of a run, in order.

    Raises:
        RunDamaged: the file is missing, or a line cannot be read; the message gives its number.
    """
    path = folder / "metrics.jsonl"
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise RunDamaged(f"{path} cannot be read: {error}") from error
    names = [each.name for each in fields(Epoch)]
    epochs: list[Epoch] = []
    for number, line in enumerate(lines, start=1):
        try:
            stored = json.loads(line)
            epochs.append(Epoch(**{name: stored[name] for name in names}))
        except (ValueError, TypeError, KeyError) as error:
            raise RunDamaged(f"{path}, line {number}, is not an epoch: {error!r}") from error
    return epochs
