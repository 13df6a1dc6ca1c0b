"""A report in one call: gather, group, lay out, print or write."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from avcil.incremental.report import formats
from avcil.incremental.report.gather import gather
from avcil.incremental.report.rows import Benchmark, benchmarks
from avcil.incremental.report.tables import overview
from avcil.progress import log

Format = Literal["table", "markdown", "csv"]


def make_report(roots: Sequence[Path], form: Format = "table", output: Path | None = None) -> None:
    """Report all finished runs below some folders, on standard output or into a file.

    Runs that are damaged, unfinished or repeated are named on standard error and left out.

    Raises:
        NoRuns: there is no finished run.
    """
    gathered = gather(roots)
    found, repeats = benchmarks(gathered.runs)
    for line in [*gathered.left_out, *repeats]:
        log(f"left out: {line}")
    if output is None:
        terminal = form == "table" and sys.stdout.isatty()
        sys.stdout.write(render(found, form, color=terminal))
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(render(found, form), "utf-8")
        log(f"wrote {output}")


def render(found: Sequence[Benchmark], form: Format, color: bool = False) -> str:
    """Return the report as text; `color` for a terminal that shows bold and underlined."""
    if form == "csv":
        return formats.comma_separated(found)
    tables = [overview(benchmark) for benchmark in found]
    if form == "markdown":
        return formats.markdown(tables)
    return formats.terminal(tables, color=color)
