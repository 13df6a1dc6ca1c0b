"""Results of a run and the files of its folder. Without torch.

A run folder holds `config.json` (the resolved configuration), `results.json` (this module's
`Results`), `metrics.jsonl` (one line per epoch) and the weights of each task.

Shapes: T tasks. Accuracies lie in [0, 1]; only reports show percentages.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from avcil.cache.format.layout import read_encoding
from avcil.cache.schema import Encoding, Storage
from avcil.incremental.errors import RunDamaged
from avcil.incremental.options import RENAMED_METHODS
from avcil.incremental.runs.facts import MethodFacts
from avcil.incremental.runs.matrix import AccuracyMatrix
from avcil.runtime.files import replace_file

FORMAT = 1


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
    encoding: Encoding | None = None
    """Encoder, settings and shape of the tokens; None in folders of version 0.1.0."""
    storage: Storage | None = None
    """How the cache stored the tokens, and so how they were rounded; None as above."""
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
        said, tokens, kept = (stored.pop(name, None) for name in ("method", "encoding", "storage"))
        results = Results(
            cache=cache,
            method=MethodFacts(**said) if said else None,
            encoding=read_encoding(tokens) if tokens else None,
            storage=Storage(**kept) if kept else None,
            **stored,
        )
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
