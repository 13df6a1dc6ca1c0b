"""Which runs were trained at the same time, so that their times do not compare."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from avcil.incremental.report.rows import Row
from avcil.incremental.runs.results import Run

SLACK = 0.5
"""Share of a task's time that must lie between the files of two tasks: less in a copied folder."""


def trained_together(rows: Sequence[Row]) -> list[bool]:
    """Tell for each row whether any of its runs was trained while another run of the report was.

    Read from when the weights of each task were written; False where that cannot be told, as in a
    copied folder, whose files are all of one moment.
    """
    spans = sorted((*span, place) for place, row in enumerate(rows) for span in _spans(row))
    shared: set[int] = set()
    latest = (float("-inf"), -1)
    for start, end, place in spans:
        if start < latest[0]:
            shared |= {place, latest[1]}
        latest = max(latest, (end, place))
    return [place in shared for place in range(len(rows))]


def _spans(row: Row) -> list[tuple[float, float]]:
    return [span for run in row.runs if (span := _span(run)) is not None]


def _span(run: Run) -> tuple[float, float] | None:
    """Return when the training of a run began and ended, seconds since the epoch."""
    seconds = run.results.seconds
    files = [run.folder / f"task-{task}.safetensors" for task in range(len(seconds))]
    try:
        times = [file.stat().st_mtime for file in files]
    except OSError:
        return None
    gaps = [later - earlier for earlier, later in pairwise(times)]
    copied = any(gap < SLACK * spent for gap, spent in zip(gaps, seconds[1:], strict=True))
    return None if copied or not gaps else (times[0] - seconds[0], times[-1])
