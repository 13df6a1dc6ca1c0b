"""Runs to benchmarks: what may be compared, what is one row, what is left out."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

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
from avcil.incremental.results import CacheIdentity, Run

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
        replace(each, clips=_name_clips(each)) if len(lists[_cache_key(each)]) > 1 else each
        for each in found
    ]


def _cache_key(found: Benchmark) -> Hashable:
    return found.cache.dataset, found.cache.encoder, found.cache.fingerprint


def _name_clips(found: Benchmark) -> str:
    return f"clips {found.rows_digest[:6] or 'unsaid'} ({found.cache.clips:,})"


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
