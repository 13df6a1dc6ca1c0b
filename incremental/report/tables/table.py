"""Tables of marked cells: what every format prints, so that all print the same.

Figures are in per cent, rounded to two decimals here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from avcil.incremental.report.rows import Benchmark, Row, Summary
from avcil.incremental.report.tables.notes import benchmark_notes
from avcil.incremental.runs.results import CacheIdentity

if TYPE_CHECKING:
    from avcil.incremental.report.tables.targets import Target

DECIMALS = 2
NOTHING = "-"


class Mark(Enum):
    """Rank of a figure in its column."""

    NONE = ""
    BEST = "best"
    SECOND = "second"


@dataclass(frozen=True, slots=True)
class Cell:
    """A piece of a table."""

    text: str
    value: float | None = None
    """What a column is sorted and ranked by."""
    mark: Mark = Mark.NONE


@dataclass(frozen=True, slots=True)
class Column:
    """Heading of a column; figures stand to the right."""

    title: str
    figure: bool = True
    best: Callable[[Sequence[float]], float] | None = None
    """`max` or `min` where the best cells are marked."""
    group: str = ""
    """Heading above several columns, such as `published`."""

    @property
    def heading(self) -> str:
        """Title with its group, for formats that have one line of headings."""
        return f"{self.group} {self.title}".strip()


@dataclass(slots=True)
class Table:
    """A table, ready for any format."""

    name: str
    """A short word for files and anchors."""
    title: str
    columns: list[Column]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    """What to run to fill the empty cells."""

    @property
    def short(self) -> str:
        """The title without cache and protocol, where a heading above says them."""
        return self.title.split(". ")[0]


@dataclass(frozen=True, slots=True)
class OfEach:
    """A table of every single benchmark."""

    make: Callable[[Benchmark, Sequence[Target]], Table | None]
    """None where the runs cannot fill it; targets are figures to show beside."""

    def tables(self, found: Sequence[Benchmark], targets: Sequence[Target]) -> list[Table]:
        """Return the tables that the runs can fill."""
        made = [self.make(benchmark, targets) for benchmark in found]
        return [table for table in made if table]


@dataclass(frozen=True, slots=True)
class OfGroups:
    """A table that compares the benchmarks of a group."""

    make: Callable[[Sequence[Benchmark], Sequence[Target]], Table | None]
    """None where the runs cannot fill it; targets are figures to show beside."""
    key: Callable[[Benchmark], Hashable]
    """What the benchmarks of a group share."""

    def tables(self, found: Sequence[Benchmark], targets: Sequence[Target]) -> list[Table]:
        """Return the tables that the runs can fill, in order of each group's first benchmark."""
        groups: dict[Hashable, list[Benchmark]] = {}
        for benchmark in found:
            groups.setdefault(self.key(benchmark), []).append(benchmark)
        made = [self.make(group, targets) for group in groups.values()]
        return [table for table in made if table]


def name_cell(row: Row) -> Cell:
    """Return the name of a row, with its method as a paper prints it."""
    return Cell(row.name)


def figure_cell(summary: Summary) -> Cell:
    """Return `mean ± deviation`; without the deviation for a single run."""
    if math.isnan(summary.mean):
        return Cell(NOTHING)
    text = f"{round(summary.mean, DECIMALS) + 0.0:.{DECIMALS}f}"  # never -0.00
    if summary.deviation is not None:
        text += f" ± {summary.deviation:.{DECIMALS}f}"
    return Cell(text, summary.mean)


def mark_best(columns: Sequence[Column], rows: list[list[Cell]], among: Sequence[bool]) -> None:
    """Mark best and second of each ranked column, among the rows that compete.

    Figures that print the same rank the same.
    """
    for place, column in enumerate(columns):
        if column.best is None:
            continue
        marks = _marks(column.best, [row[place] for row in rows], among)
        for row, mark in zip(rows, marks, strict=True):
            row[place] = replace(row[place], mark=mark)


def _marks(
    best: Callable[[Sequence[float]], float], cells: Sequence[Cell], among: Sequence[bool]
) -> list[Mark]:
    values = [
        round(cell.value, DECIMALS) if takes_part and cell.value is not None else None
        for cell, takes_part in zip(cells, among, strict=True)
    ]
    ranks: dict[float, Mark] = {}
    for mark in (Mark.BEST, Mark.SECOND):
        left = [value for value in values if value is not None and value not in ranks]
        if left and sum(value is not None for value in values) > 1:
            ranks[best(left)] = mark
    return [Mark.NONE if value is None else ranks.get(value, Mark.NONE) for value in values]


def name_cache(cache: CacheIdentity) -> str:
    """Return dataset, encoder and cache in words, saying so where weights are random."""
    random = " with RANDOM WEIGHTS" if cache.random_weights else ""
    return f"{cache.dataset}, encoder {cache.encoder}{random}, cache {cache.fingerprint[:12]}"


def name_clips(found: Benchmark) -> str:
    """Return the cache in words, with the list of clips where the cache alone would mislead."""
    return ", ".join(filter(None, [name_cache(found.cache), found.clips]))


def name_benchmark(found: Benchmark) -> str:
    """Return cache, clips and tasks in words: what no two benchmarks of a report share."""
    return f"{name_clips(found)}: {found.protocol}"


def overview(found: Benchmark, targets: Sequence[Target] = ()) -> Table:
    """Return all rows of a benchmark, best mean accuracy first; no targets."""
    extra = _extra_columns(found.rows)
    columns = [
        Column("method", figure=False),
        Column("mean accuracy", best=max),
        Column("avg. forgetting", best=min),
        Column("last accuracy", best=max),
        Column("seeds"),
        *(column for column, _ in extra),
    ]
    rows = [
        [
            name_cell(row),
            figure_cell(row.accuracy),
            figure_cell(row.forgetting),
            figure_cell(row.last),
            count_cell(row.seeds),
        ]
        + [make(row) for _, make in extra]
        for row in found.rows
    ]
    mark_best(columns, rows, [row.competes for row in found.rows])
    return Table("overview", name_benchmark(found), columns, rows, benchmark_notes(found))


OVERVIEW = OfEach(overview)


def count_cell(count: int) -> Cell:
    """Return a whole number."""
    return Cell(str(count), count)


def _extra_columns(rows: Sequence[Row]) -> list[tuple[Column, Callable[[Row], Cell]]]:
    """Return the columns that only some reports need."""
    extra: list[tuple[Column, Callable[[Row], Cell]]] = []
    if any(row.orders > 1 for row in rows):
        extra.append((Column("orders"), lambda row: count_cell(row.orders)))
    if any(row.leak_free for row in rows):
        extra.append((Column("leak-free accuracy", best=max), _leak_free_cell))
    return extra


def _leak_free_cell(row: Row) -> Cell:
    return figure_cell(row.leak_free) if row.leak_free else Cell(NOTHING)
