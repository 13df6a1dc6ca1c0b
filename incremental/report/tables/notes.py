"""Notes below tables: definitions, protocol, and what does not compare."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from avcil.benchmarks.cards import cards
from avcil.incremental.report.labels import unsaid
from avcil.incremental.report.rows import Benchmark, Row, chance, class_order
from avcil.incremental.runs.results import CacheIdentity

MACHINE = ("precision", "device", "avcil", "torch")
"""Versions of a run that may change its figures, or the time it took."""
DEFINITIONS = (
    "Mean accuracy: mean over tasks of the accuracy on the test clips of all classes seen so far. "
    "Average forgetting: mean over tasks of how far earlier tasks fell below their best; the best "
    "excludes the present step, so it is negative where old tasks improve. Last accuracy: on all "
    "test clips after the last task."
)


def cache_notes(cache: CacheIdentity) -> list[str]:
    """Return what a reader must know of a cache before trusting a figure."""
    if not cache.random_weights:
        return []
    return [
        f"The weights of encoder {cache.encoder} are random: these figures show that the software "
        "works and compare methods on these features. They say nothing about SAM-Audio or any "
        "published result."
    ]


def benchmark_notes(found: Benchmark, rows: Sequence[Row] | None = None) -> list[str]:
    """Return the footnotes of a table: definitions, protocol, and what does not compare."""
    rows = found.rows if rows is None else rows
    notes = [*cache_notes(found.cache), DEFINITIONS]
    if not rows:
        return notes
    notes += [_protocol_note(rows), _deviation_note(rows)]
    notes += [*_mixed(rows), *_resumed(rows)]
    notes += [f"Where a label does not say otherwise: {usual}." for usual in unsaid(rows)]
    notes += [
        f"{method} trains on all clips of all tasks seen: not ranked."
        for method in upper_bounds(rows)
    ]
    card = cards().get(found.cache.dataset)
    if card and card.leak:
        notes.append(card.leak)
    if any(row.leak_free for row in rows):
        notes.append(
            "Leak-free accuracy: mean accuracy on the test clips that share no source video with a "
            "training clip."
        )
    if len({frozenset(chance(run) for run in row.runs) for row in rows}) > 1:
        notes.append(
            "The rows were not all run with the same seeds and class orders; the comparison of "
            "pairs uses only those that two rows share."
        )
    return notes


def upper_bounds(rows: Iterable[Row]) -> list[str]:
    """Return the names of the methods that are not ranked."""
    return list(dict.fromkeys(row.title for row in rows if not row.competes))


def _protocol_note(rows: Sequence[Row]) -> str:
    """Return the settings that a reader asks for first, with every value that occurs."""
    parts = []
    for name in ("recipe", "epochs", "memory"):
        values = sorted({str(row.settings[name]) for row in rows if name in row.settings})
        if values:
            parts.append(f"{name} {'/'.join(values)}")
    precisions = {run.results.versions.get("precision") for row in rows for run in row.runs}
    if len(precisions) > 1:
        parts.append(f"precision {'/'.join(sorted(each or 'unknown' for each in precisions))}")
    orders = len({class_order(run) for row in rows for run in row.runs})
    parts.append("one class order" if orders == 1 else f"{orders} class orders")
    return f"Protocol: {', '.join(parts)}."


def _deviation_note(rows: Sequence[Row]) -> str:
    """Return how the deviation is to be read."""
    several = any(row.orders > 1 for row in rows)
    over = "seeds and class orders together" if several else "seeds"
    return f"In per cent; mean ± sample deviation (n - 1) over the runs of a row: {over}."


def _mixed(rows: Sequence[Row]) -> list[str]:
    """Return, for each version that differs between runs, which runs have which."""
    notes = []
    for name in MACHINE:
        having: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            values = [run.results.versions.get(name, "unknown") for run in row.runs]
            for value in sorted(set(values)):
                seeds = [
                    str(run.config["seed"])
                    for run, own in zip(row.runs, values, strict=True)
                    if own == value
                ]
                some = f" (seed {', '.join(seeds)})" if len(seeds) < len(values) else ""
                having[value].append(row.name + some)
        if len(having) > 1:
            spelled = (f"{value} for {'; '.join(labels)}" for value, labels in having.items())
            notes.append(f"Runs differ in {name}: {'. '.join(spelled)}.")
    return notes


def _resumed(rows: Sequence[Row]) -> list[str]:
    """Return which runs were resumed with other versions or on another device."""
    notes = []
    for row in rows:
        for run in row.runs:
            for change in run.results.resumed:
                versions = ", ".join(f"{k} {v}" for k, v in change.items() if k != "task")
                notes.append(
                    f"{row.name}, seed {run.config['seed']}: from task {change['task']} on with "
                    f"{versions}."
                )
    return notes
