"""Find the runs that a report may use, and say of every other one why it is left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from avcil.incremental.errors import NoRuns, RunDamaged
from avcil.incremental.report.rows import flatten
from avcil.incremental.results import Run, find_runs, read_run

HOW_TO_MAKE_RUNS = (
    "make some with `avcil train --dataset NAME` (or `avcil demo`, which brings its own clips)"
)
NEEDED = ("dataset", "head.name", "method.name", "modality", "seed")
"""Fields of a configuration that every table needs."""


@dataclass(slots=True)
class Gathered:
    """What was found below the folders of a report."""

    runs: list[Run] = field(default_factory=list)
    """Finished and readable, each folder once, sorted by folder."""
    left_out: list[str] = field(default_factory=list)
    """One line for each run folder that is not used: which, why, what to do."""


def gather(roots: Sequence[Path]) -> Gathered:
    """Read every finished run at or below the folders.

    Raises:
        NoRuns: a folder does not exist, or there is no finished run in any.
    """
    found = Gathered()
    for folder in _folders(roots):
        try:
            run = read_run(folder)
            _check_config(run)
            _check_finished(run)
        except RunDamaged as problem:
            found.left_out.append(str(problem))
        else:
            found.runs.append(run)
    if not found.runs:
        raise NoRuns(_nothing(roots, found.left_out))
    return found


def _folders(roots: Iterable[Path]) -> list[Path]:
    """Return the run folders below all roots, each once even where roots overlap."""
    folders: dict[Path, Path] = {}
    for root in roots:
        if not root.is_dir():
            raise NoRuns(f"there is no folder {str(root)!r}: {HOW_TO_MAKE_RUNS}")
        for folder in find_runs(root):
            folders.setdefault(folder.resolve(), folder)
    return list(folders.values())


def _check_config(run: Run) -> None:
    """Refuse a configuration without the fields that every table needs."""
    settings = flatten(run.config)
    missing = [name for name in NEEDED if name not in settings]
    if missing:
        raise RunDamaged(f"{run.folder / 'config.json'} does not say {', '.join(missing)}")
    if type(settings["seed"]) is not int:
        raise RunDamaged(
            f"{run.folder / 'config.json'}: seed is not a whole number: {settings['seed']!r}"
        )


def _check_finished(run: Run) -> None:
    """Refuse a run that a table must not count yet."""
    done, tasks = len(run.results.correct), len(run.results.tasks)
    if done < tasks or not tasks:
        raise RunDamaged(
            f"{run.folder} is unfinished: {done} of {tasks} tasks are done; "
            "run its `avcil train` command again to finish it"
        )


def _nothing(roots: Sequence[Path], left_out: Sequence[str]) -> str:
    where = ", ".join(repr(str(root)) for root in roots)
    reasons = "".join(f"\n  left out: {line}" for line in left_out)
    return f"no finished run in {where}: {HOW_TO_MAKE_RUNS}{reasons}"
