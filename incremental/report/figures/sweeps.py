"""What a setting does: mean accuracy over the values of one setting, all others the same."""

from __future__ import annotations

import json
from collections import defaultdict

from avcil.incremental.report.figures.curves import Curve
from avcil.incremental.report.figures.style import method_style
from avcil.incremental.report.labels import short_name
from avcil.incremental.report.rows import Benchmark, Row


def sweep_curves(found: Benchmark) -> dict[str, list[Curve]]:
    """Return, for each setting with several numbers, a curve for each group of rows it varies.

    The rows of a curve differ in this setting alone. Curves have at least two points.
    """
    names = sorted({name for row in found.rows for name in row.settings})
    return {name: lines for name in names if (lines := _lines(found.rows, name))}


def _lines(rows: list[Row], name: str) -> list[Curve]:
    groups: dict[str, dict[float, Row]] = defaultdict(dict)
    for row in rows:
        value = row.settings.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            rest = {key: other for key, other in row.settings.items() if key != name}
            groups[json.dumps(rest, sort_keys=True)][float(value)] = row
    lines = []
    for group in groups.values():
        if len(group) > 1:
            pairs = sorted(group.items())
            row = pairs[0][1]
            summaries = [row.accuracy for _, row in pairs]
            lines.append(
                Curve(
                    short_name(row),
                    [value for value, _ in pairs],
                    [summary.mean for summary in summaries],
                    [summary.deviation or 0.0 for summary in summaries],
                    method_style(row.method),
                )
            )
    return sorted(lines, key=lambda line: line.label)
