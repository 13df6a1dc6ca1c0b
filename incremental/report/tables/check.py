"""Do re-run figures hold against targets? For people who reproduce."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from avcil.incremental.options import DEFAULT_HEAD
from avcil.incremental.report.rows import Benchmark, Row, Summary
from avcil.incremental.report.tables.table import (
    NOTHING,
    Cell,
    Column,
    Table,
    cache_notes,
    figure_cell,
    name_cache,
)
from avcil.incremental.report.tables.targets import Target
from avcil.incremental.runs.facts import facts_without_a_run


@dataclass(frozen=True, slots=True)
class Check:
    """One target against one row that repeats it, if there is any."""

    target: Target
    found: Benchmark | None
    row: Row | None
    tolerance: float
    """Percentage points, to both sides."""

    @property
    def differences(self) -> list[tuple[str, float, Summary]]:
        """Name, target and re-run figure of everything that the target states."""
        if self.row is None:
            return []
        stated = [("accuracy", self.target.mean_accuracy, self.row.accuracy)]
        if self.target.average_forgetting is not None:
            stated.append(("forgetting", self.target.average_forgetting, self.row.forgetting))
        return stated

    @property
    def holds(self) -> bool:
        """True when there is a row and all its figures are within the tolerance."""
        return bool(self.differences) and all(
            abs(summary.mean - target) <= self.tolerance for _, target, summary in self.differences
        )


def check_all(
    targets: Iterable[Target], found: Sequence[Benchmark], tolerance: float
) -> list[Check]:
    """Pair every target with every row that repeats it, or with none.

    Targets on datasets of which there is no run at all are passed over.
    """
    datasets = {benchmark.cache.dataset for benchmark in found}
    checks = []
    for target in _distinct(target for target in targets if target.dataset in datasets):
        matches = _repeating(target, found)
        checks += [Check(target, b, row, tolerance) for b, row in matches]
        if not matches:
            checks.append(Check(target, None, None, tolerance))
    return checks


def _repeating(target: Target, found: Sequence[Benchmark]) -> list[tuple[Benchmark, Row]]:
    """Return the rows of a target's protocol: the very row that was reported, or else all.

    The settings tell which, and rows of other settings do not repeat it; a target without any is
    compared with the rows of its label.
    """
    rows = [(b, row) for b in found for row in b.rows if target.asks_for(b, row)]
    if target.settings:
        return [(b, row) for b, row in rows if row.digest == target.settings]
    alike = [(b, row) for b, row in rows if row.label == target.label]
    return alike or rows


def _distinct(targets: Iterable[Target]) -> list[Target]:
    """Drop targets that another one states again, with as much forgetting or with none stated."""
    kept: dict[object, dict[float | None, Target]] = {}
    for target in targets:
        head = "" if target.head == _own_head(target) else target.head
        cache = (target.dataset, target.encoder, target.fingerprint, target.tasks)
        parts = (target.method, head, target.modality, target.without)
        key = (cache, parts, target.label, target.settings, target.mean_accuracy)
        kept.setdefault(key, {}).setdefault(target.average_forgetting, target)
    for same in kept.values():
        if len(same) > 1:
            same.pop(None, None)
    return [target for same in kept.values() for target in same.values()]


def check_table(checks: Sequence[Check], tolerance: float) -> Table:
    """Return one line a figure: target, re-run, difference, verdict."""
    columns = [
        Column("what", figure=False),
        Column("target"),
        Column("re-run"),
        Column("difference"),
        Column("verdict", figure=False),
    ]
    rows = [line for check in checks for line in _lines(check)]
    held = sum(check.holds for check in checks)
    title = f"{held} of {len(checks)} comparisons hold within {tolerance:g} percentage points"
    caches = {check.found.cache for check in checks if check.found}
    notes = [note for cache in caches for note in [f"{name_cache(cache)}.", *cache_notes(cache)]]
    return Table("check", title, columns, rows, sorted(set(notes)))


def _lines(check: Check) -> list[list[Cell]]:
    name = _describe(check)
    if check.row is None:
        text = f"{check.target.mean_accuracy:.2f}"
        return [[Cell(name), Cell(text), Cell(NOTHING), Cell(NOTHING), Cell("not run")]]
    return [
        [
            Cell(f"{name}: {figure}"),
            Cell(f"{target:.2f}", target),
            figure_cell(summary),
            Cell(f"{summary.mean - target:+.2f}", summary.mean - target),
            Cell("holds" if abs(summary.mean - target) <= check.tolerance else "MISSED"),
        ]
        for figure, target, summary in check.differences
    ]


def _describe(check: Check) -> str:
    """Return dataset, tasks, cache and the row's label, or what the target asks for."""
    target = check.target
    tasks = f" in {target.tasks}" if target.tasks else ""
    if check.row is not None and check.found is not None:
        parts = [check.found.cache.encoder, check.found.clips, check.row.label]
        return ", ".join([f"{target.dataset}{tasks}", *filter(None, parts)])
    extras = [target.modality] if target.modality != "av" else []
    usual = target.head in ("", DEFAULT_HEAD, _own_head(target))
    extras += [] if usual else [f"{target.head} head"]
    extras += [f"without {term}" for term in target.without]
    detail = f" ({', '.join(extras)})" if extras else ""
    return f"{target.dataset}{tasks}, {target.method}{detail}"


def _own_head(target: Target) -> str:
    return facts_without_a_run(target.method).head
