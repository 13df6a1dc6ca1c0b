"""Tables of comparison: pairs of methods on one cache, and one method on several caches."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from avcil.incremental.report.labels import named, told_apart
from avcil.incremental.report.rows import Benchmark, Row, chance
from avcil.incremental.report.tables.notes import benchmark_notes, cache_notes, upper_bounds
from avcil.incremental.report.tables.statistics import (
    ENOUGH_PAIRS,
    Difference,
    paired_difference,
    variance_shares,
)
from avcil.incremental.report.tables.table import (
    NOTHING,
    Cell,
    Column,
    OfEach,
    OfGroups,
    Table,
    count_cell,
    figure_cell,
    mark_best,
    name_benchmark,
    name_cell,
    name_clips,
)
from avcil.incremental.report.tables.targets import Target
from avcil.incremental.runs.matrix import AccuracyMatrix
from avcil.incremental.runs.results import Run

PAIRS_NOTE = (
    "Difference of two runs of the same seed and class order, mean over such pairs, in percentage "
    "points; 95 % interval by percentile bootstrap over the pairs (10,000 resamples). It counts "
    f"as decided from {ENOUGH_PAIRS} pairs on, where the interval leaves zero out: fewer pairs "
    "agree by chance alone more often than once in 20."
)

OTHER_CLIPS_NOTE = (
    "The differences cannot be attributed: the columns differ in their clips, not only in their "
    "features."
)


def pairs_table(found: Benchmark, targets: Sequence[Target] = ()) -> Table | None:
    """Compare the best competing row with every other; None where there is nothing to compare.

    Targets have no runs to pair with and are left out.
    """
    best = next((row for row in found.rows if row.competes), None)
    others = [row for row in found.rows if row is not best]
    if best is None or not others:
        return None
    columns = [
        Column(f"{best.name} minus", figure=False),
        Column("accuracy"),
        Column("95 % interval"),
        Column("forgetting"),
        Column("pairs"),
        Column("verdict", figure=False),
    ]
    rows = [_pairs_row(best, other) for other in others]
    title = f"Differences. {name_benchmark(found)}"
    return Table("pairs", title, columns, rows, [*cache_notes(found.cache), PAIRS_NOTE])


def _pairs_row(best: Row, other: Row) -> list[Cell]:
    accuracy = _difference(best, other, "mean_accuracy")
    forgetting = _difference(best, other, "average_forgetting")
    if accuracy is None:
        nothing = [Cell(NOTHING)] * 3
        return [name_cell(other), *nothing, count_cell(0), Cell("no pair to compare")]
    return [
        name_cell(other),
        Cell(f"{accuracy.mean:+.2f}", accuracy.mean),
        _interval(accuracy),
        _signed(forgetting),
        count_cell(accuracy.pairs),
        Cell(_verdict(accuracy)),
    ]


def _interval(difference: Difference) -> Cell:
    if difference.pairs < 2:
        return Cell(NOTHING)
    return Cell(f"{difference.low:+.2f} to {difference.high:+.2f}", difference.low)


def _signed(difference: Difference | None) -> Cell:
    if difference is None or math.isnan(difference.mean):
        return Cell(NOTHING)
    return Cell(f"{difference.mean:+.2f}", difference.mean)


def _verdict(difference: Difference) -> str:
    """Return in words whether accuracy differs."""
    if not difference.enough:
        return "too few pairs"
    if not difference.decided:
        return "no difference shown"
    return "better" if difference.mean > 0 else "worse"


def _difference(one: Row, other: Row, figure: str) -> Difference | None:
    """Return the paired difference of a figure, in percentage points; None without a pair."""
    partners = {chance(run): run for run in other.runs}
    differences = [
        100 * (_value(run, figure) - _value(partners[chance(run)], figure))
        for run in one.runs
        if chance(run) in partners
    ]
    return paired_difference(differences) if differences else None


def _value(run: Run, figure: str) -> float:
    matrix: AccuracyMatrix = run.results.matrix
    return float(getattr(matrix, figure))


def caches_table(group: Sequence[Benchmark], targets: Sequence[Target] = ()) -> Table | None:
    """Put the same methods on several caches side by side; None for a single cache.

    Other clips of one cache stand in a column of their own. Targets name no cache and are left out.

    Args:
        group: benchmarks of one dataset and the same task sizes, at least one.
        targets: not used.
    """
    if len(group) < 2:
        return None
    headings = _cache_headings(group)
    table = _by_label(group)
    labels = sorted(table, key=lambda label: _most_caches_then_best(table[label]))
    cells = [
        [figure_cell(row.accuracy) if row else Cell(NOTHING) for row in table[label]]
        for label in labels
    ]
    columns = [
        Column("method", figure=False),
        *(Column(heading, best=max) for heading in headings),
    ]
    names = [name_cell(next(filter(None, table[label]))) for label in labels]
    rows = [[name, *row] for name, row in zip(names, cells, strict=True)]
    bounds = upper_bounds(row for found in group for row in found.rows)
    competes = [all(row.competes for row in table[label] if row) for label in labels]
    mark_best(columns, rows, competes)
    rows.append([Cell("mean of methods on all caches"), *_column_means(cells)])
    title = f"Caches. Mean accuracy on {group[0].cache.dataset}, {group[0].protocol}"
    notes = [note for found in group for note in cache_notes(found.cache)]
    notes += [f"{h}: {name_clips(found)}." for h, found in zip(headings, group, strict=True)]
    other_clips = any(found.clips for found in group)
    ranked = [row for row, competing in zip(cells, competes, strict=True) if competing]
    notes += [OTHER_CLIPS_NOTE if other_clips else _shares_note(ranked, bounds)]
    notes += benchmark_notes(group[0], [row for found in group for row in found.rows])
    return Table("caches", title, columns, rows, list(dict.fromkeys(notes)))


def _by_label(group: Sequence[Benchmark]) -> dict[str, list[Row | None]]:
    """Return label -> [row on each cache]; labels are made anew, to mean the same everywhere."""
    places = [place for place, found in enumerate(group) for _ in found.rows]
    table: dict[str, list[Row | None]] = {}
    for place, row in zip(places, named([r for b in group for r in b.rows]), strict=True):
        table.setdefault(row.name, [None] * len(group))[place] = row
    return table


def _most_caches_then_best(rows: Iterable[Row | None]) -> tuple[int, float]:
    means = [row.accuracy.mean for row in rows if row]
    return -len(means), -max(means)


def _cache_headings(group: Sequence[Benchmark]) -> list[str]:
    """Return the encoders, each with as much more as tells it from the others."""
    return told_apart(
        [found.cache.encoder for found in group],
        [found.cache.fingerprint[:6] for found in group],
        [found.clips for found in group],
    )


def _complete(cells: Sequence[Sequence[Cell]]) -> list[list[float]]:
    """Return the figures of the methods that were run on all caches."""
    values = [[cell.value for cell in row] for row in cells]
    return [[v for v in row if v is not None] for row in values if None not in row]


def _column_means(cells: Sequence[Sequence[Cell]]) -> list[Cell]:
    complete = _complete(cells)
    if not complete:
        return [Cell(NOTHING)] * len(cells[0])
    means = [statistics.fmean(column) for column in zip(*complete, strict=True)]
    return [Cell(f"{mean:.2f}", mean) for mean in means]


def _shares_note(cells: Sequence[Sequence[Cell]], bounds: Sequence[str]) -> str:
    """Say how much of the variation among competing methods is due to features and to methods."""
    complete = _complete(cells)
    aside = f" ({', '.join(bounds)} aside)" if bounds else ""
    if len(complete) < 2:
        ran = f"only {len(complete)} of the methods was" if complete else "none of the methods was"
        return (
            f"The differences cannot be attributed: {ran} run on every cache{aside}; it takes two."
        )
    shares = variance_shares(complete)
    if shares is None:
        return "There is no variation to attribute: all figures are the same."
    return (
        f"Of the variation among the {len(complete)} methods run on every cache{aside}, "
        f"{shares.features:.0%} is due to the features, {shares.methods:.0%} to the methods, and "
        f"{shares.interplay:.0%} to their interaction and chance."
    )


PAIRS = OfEach(pairs_table)
CACHES = OfGroups(caches_table, key=lambda found: (found.cache.dataset, found.sizes))
