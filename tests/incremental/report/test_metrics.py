"""The table of all figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from avcil.incremental.report.make import find
from avcil.incremental.report.tables.metrics import metrics_table

MakeRun = Callable[..., Path]


def test_every_figure_of_a_row_and_its_transfer_against_the_upper_bound(
    make_run: MakeRun, tmp_path: Path
) -> None:
    upper = {"upper_bound": True, "title": "Joint"}
    make_run("guided", tasks=2, total=[20, 20], correct=[[20], [10, 16]])
    make_run("joint", tasks=2, total=[20, 20], correct=[[20], [18, 18]], extra={"method": upper})
    [found] = find([tmp_path])
    made = metrics_table(found)
    rows = {row[0].text: row[1:] for row in made.rows}
    headings = [column.title for column in made.columns[1:]]
    guided = dict(zip(headings, (cell.value for cell in rows["Guided"]), strict=True))
    assert guided == pytest.approx(
        {
            "last": 65.0,
            "anytime": 82.5,
            "old": 50.0,
            "new": 80.0,
            "forg. incl. last": 50.0,
            "first - last": 50.0,
            "BWT": -50.0,
            "FWT": -10.0,
        }
    )
    assert rows["Joint"][-1].value is None
