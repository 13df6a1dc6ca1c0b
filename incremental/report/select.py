"""Find the runs that a report can use, and the reason why each of the others is left out."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from avcil.incremental.errors import NoRuns, RunDamaged
from avcil.incremental.report.labels import named
from avcil.incremental.report.rows import (
    CHANCE,
    Benchmark,
    Chance,
    Row,
    Settings,
    chance,
    flatten,
)
from avcil.incremental.runs.results import CacheIdentity, Run, find_runs, read_run

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
    for folder in _folders(roots, found.left_out):
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


def _folders(roots: Iterable[Path], left_out: list[str]) -> list[Path]:
    """Return the run folders below all roots, each once even where roots overlap.

    Folders that cannot be entered are added to `left_out`.
    """
    folders: dict[Path, Path] = {}
    for root in roots:
        if not root.is_dir():
            raise NoRuns(f"there is no folder {str(root)!r}: {HOW_TO_MAKE_RUNS}")
        below, closed = find_runs(root)
        left_out += closed
        for folder in below:
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
        groups[run.results.cache, str(run.config.get("rows") or ""), sizes].append(run)
    repeats: list[str] = []
    found = [
        Benchmark(cache, sizes, _rows(group, repeats), digest)
        for (cache, digest, sizes), group in groups.items()
    ]
    return sorted(_with_clips(found), key=_benchmark_order), repeats


def _benchmark_order(found: Benchmark) -> tuple[object, ...]:
    cache, sizes = found.cache, found.sizes
    one_list = (cache.dataset, cache.encoder, cache.fingerprint, cache.clips, found.rows_digest)
    return *one_list, cache.random_weights, len(sizes), sizes


def _with_clips(found: Sequence[Benchmark]) -> list[Benchmark]:
    """Name the list of clips where two benchmarks of one fingerprint do not share it."""
    lists: dict[Hashable, set[tuple[str, int]]] = defaultdict(set)
    for each in found:
        lists[_cache_key(each)].add((each.rows_digest, each.cache.clips))
    return [
        replace(each, clips=f"clips {each.rows_digest[:6] or 'unsaid'} ({each.cache.clips:,})")
        if len(lists[_cache_key(each)]) > 1
        else each
        for each in found
    ]


def _cache_key(found: Benchmark) -> Hashable:
    return found.cache.dataset, found.cache.encoder, found.cache.fingerprint


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
