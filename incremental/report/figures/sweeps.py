"""What a setting does: mean accuracy over the values of one setting, all others the same."""

from __future__ import annotations

from avcil.incremental.report.figures.curves import Curve
from avcil.incremental.report.figures.style import method_style
from avcil.incremental.report.labels import short_title, swept_settings
from avcil.incremental.report.rows import Benchmark


def sweep_curves(found: Benchmark) -> dict[str, list[Curve]]:
    """Return, for each setting with several numbers, a curve for each group of rows it varies.

    The rows of a curve differ in this setting alone. Curves have at least two points.
    """
    curves: dict[str, list[Curve]] = {}
    for sweep in swept_settings(found.rows):
        points = [
            (float(value), row)
            for value, row in sweep.points
            if isinstance(value, int | float) and not isinstance(value, bool)
        ]
        if len(points) > 1:
            row = points[0][1]
            summaries = [row.accuracy for _, row in points]
            curve = Curve(
                ", ".join([short_title(row), *sweep.others]),
                [value for value, _ in points],
                [summary.mean for summary in summaries],
                [summary.deviation or 0.0 for summary in summaries],
                method_style(row.method),
            )
            curves.setdefault(sweep.setting, []).append(curve)
    return curves
