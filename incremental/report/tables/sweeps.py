"""Table of the settings that were tried with several values."""

from __future__ import annotations

from collections.abc import Sequence

from avcil.incremental.report.labels import short_title, swept_settings
from avcil.incremental.report.rows import Benchmark
from avcil.incremental.report.tables.notes import benchmark_notes
from avcil.incremental.report.tables.table import (
    Cell,
    Column,
    OfEach,
    Table,
    count_cell,
    figure_cell,
    name_benchmark,
)
from avcil.incremental.report.tables.targets import Target


def sweeps_table(found: Benchmark, targets: Sequence[Target] = ()) -> Table | None:
    """Return the rows that differ in one setting alone, by its values; None without any."""
    columns = [
        Column("method", figure=False),
        Column("setting", figure=False),
        Column("value"),
        Column("mean accuracy"),
        Column("avg. forgetting"),
        Column("last accuracy"),
        Column("seeds"),
    ]
    rows = []
    for sweep in swept_settings(found.rows):
        for value, row in sweep.points:
            name = Cell(", ".join([short_title(row), *sweep.others]))
            number = isinstance(value, int | float) and not isinstance(value, bool)
            rows.append(
                [
                    name,
                    Cell(sweep.setting),
                    Cell("default" if value is None else str(value), value if number else None),
                    figure_cell(row.accuracy),
                    figure_cell(row.forgetting),
                    figure_cell(row.last),
                    count_cell(row.seeds),
                ]
            )
    if not rows:
        return None
    title = f"Settings with several values. {name_benchmark(found)}"
    return Table("sweeps", title, columns, rows, benchmark_notes(found))


SWEEPS = OfEach(sweeps_table)
