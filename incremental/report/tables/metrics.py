"""The table of all figures of each row, under the names that other software gives them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from avcil.incremental.report.rows import Benchmark, Row, Summary, chance, summarise
from avcil.incremental.report.tables.notes import benchmark_notes
from avcil.incremental.report.tables.table import (
    NOTHING,
    Cell,
    Column,
    OfEach,
    Table,
    figure_cell,
    mark_best,
    name_benchmark,
    name_cell,
)
from avcil.incremental.report.tables.targets import Target
from avcil.incremental.runs.matrix import AccuracyMatrix

FIGURES: dict[str, tuple[Callable[[Sequence[float]], float], Callable[[AccuracyMatrix], float]]] = {
    "last": (max, lambda matrix: matrix.last_accuracy),
    "anytime": (max, lambda matrix: matrix.anytime_accuracy),
    "old": (max, lambda matrix: matrix.old_accuracy),
    "new": (max, lambda matrix: matrix.new_accuracy),
    "forg. incl. last": (min, lambda matrix: matrix.forgetting_including_last),
    "first - last": (min, lambda matrix: matrix.first_minus_last),
    "BWT": (max, lambda matrix: matrix.backward_transfer),
}
"""Heading of each column, which value is best, and the figure."""
NOTE = (
    "last: accuracy after the last task; anytime: mean over steps of the mean over tasks; "
    "old, new: accuracy on earlier tasks and on the one just learned, from the second step on; "
    "forg. incl. last: best of all steps minus the last, as PyCIL and Mammoth; first - last: as "
    "Avalanche; BWT: its negative; FWT: accuracy on each task right after learning it, minus that "
    "of an upper bound of the same seed and class order that learned all classes at once."
)


def metrics_table(found: Benchmark, targets: Sequence[Target] = ()) -> Table:
    """Return every figure of each row, best mean accuracy first; targets have none of them."""
    columns = [
        Column("method", figure=False),
        *(Column(name, best=best) for name, (best, _) in FIGURES.items()),
        Column("FWT", best=max),
    ]
    rows = [
        [
            name_cell(row),
            *(figure_cell(row.summary(figure)) for _, figure in FIGURES.values()),
            _transfer_cell(row, found),
        ]
        for row in found.rows
    ]
    mark_best(columns, rows, [row.competes for row in found.rows])
    title = f"All figures. {name_benchmark(found)}"
    return Table("metrics", title, columns, rows, [*benchmark_notes(found), NOTE])


METRICS = OfEach(metrics_table)


def _transfer_cell(row: Row, found: Benchmark) -> Cell:
    """Return the forward transfer over the runs that an upper bound has a partner for."""
    bounds = [each for each in found.rows if not each.competes and each.head == row.head]
    if not row.competes or len(bounds) != 1:
        return Cell(NOTHING)
    alone = {
        chance(run): [line[-1] for line in run.results.matrix.by_task] for run in bounds[0].runs
    }
    values = [
        run.results.matrix.forward_transfer(alone[chance(run)])
        for run in row.runs
        if chance(run) in alone
    ]
    summary: Summary | None = summarise(values) if values else None
    return figure_cell(summary) if summary else Cell(NOTHING)
