"""A report in one call: gather, group, lay out, print or write."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from avcil.incremental.errors import ConfigError
from avcil.incremental.report.figures.write import FigureFiles, write_figures
from avcil.incremental.report.formats import export, latex, text
from avcil.incremental.report.rows import Benchmark
from avcil.incremental.report.select import benchmarks, gather
from avcil.incremental.report.tables import TABLES
from avcil.incremental.report.tables.check import check_all, check_table
from avcil.incremental.report.tables.table import OfEach, Table
from avcil.incremental.report.tables.targets import BUILT_IN, read_targets
from avcil.runtime.progress import log

Format = Literal["table", "markdown", "latex", "csv", "runs", "json", "html"]


def make_report(
    roots: Sequence[Path],
    form: Format = "table",
    output: Path | None = None,
    names: Sequence[str] = ("overview",),
    figures: FigureFiles | None = None,
    videos: Path | None = None,
    screen: int | None = None,
) -> str:
    """Return the report of all finished runs below some folders, and write it into a file.

    Runs that are damaged, unfinished or repeated are named on standard error and left out.

    Args:
        roots: run folders, or folders that hold some.
        form: how it is written.
        output: the file; None writes none.
        names: tables to write, or `all`. CSV, JSON and the page always contain everything.
        figures: which figures to write as files, and where.
        videos: a folder of the clips, whose frames are shown beside attention.
        screen: width of a terminal that shows bold type.

    Raises:
        NoRuns: there is no finished run.
        ConfigError: there is no table of that name, or a file cannot be written.
    """
    chosen = choose(names)
    found = find(roots, videos)
    report = render(found, form, chosen, screen)
    if output is not None:
        _write(report, output)
    if figures is not None:
        write_figures(found, figures)
    return report


def terminal_width() -> int | None:
    """Return the width of the terminal; None where output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _write(report: str, output: Path) -> None:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(report, "utf-8", "backslashreplace")
    except OSError as error:
        raise ConfigError(
            f"{str(output)!r} cannot be written ({error.strerror}): choose another --output"
        ) from error
    log(f"wrote {output}")


def find(roots: Sequence[Path], videos: Path | None = None) -> list[Benchmark]:
    """Return the benchmarks below some folders, and name on standard error what is left out.

    Raises:
        NoRuns: there is no finished run.
        ConfigError: there is no folder `videos`.
    """
    if videos is not None and not videos.is_dir():
        raise ConfigError(f"there is no folder {str(videos)!r}: --videos takes a folder of clips")
    gathered = gather(roots)
    found, repeats = benchmarks(replace(run, videos=videos) for run in gathered.runs)
    for line in [*gathered.left_out, *repeats]:
        log(f"left out: {line}")
    return found


def check_report(roots: Sequence[Path], targets: str, tolerance: float) -> bool:
    """Print how re-run figures hold against targets; True when every one does.

    Args:
        roots: run folders, or folders that hold some.
        targets: a CSV file, or `published` for the figures of the papers.
        tolerance: percentage points, to both sides.

    Raises:
        NoRuns: there is no finished run.
        ConfigError: the tolerance is not finite, the targets cannot be read, or none is about a
            dataset at hand.
    """
    if not math.isfinite(tolerance):
        raise ConfigError(f"--tolerance takes percentage points such as 1, not {tolerance}")
    stated = read_targets(None if targets == BUILT_IN else Path(targets))
    found = find(roots)
    checks = check_all(stated, found, tolerance)
    if not checks:
        datasets = sorted({benchmark.cache.dataset for benchmark in found})
        raise ConfigError(
            f"no target in {targets!r} is about {', '.join(datasets)}: name another file of targets"
        )
    sys.stdout.write(text.terminal([check_table(checks, tolerance)], terminal_width()))
    return all(check.holds for check in checks)


def choose(names: Sequence[str]) -> list[str]:
    """Return the names of tables in the order of printing.

    Raises:
        ConfigError: there is no table of that name.
    """
    names = [name.strip() for name in names]
    unknown = [name for name in names if name not in (*TABLES, "all")]
    if unknown:
        raise ConfigError(f"unknown table {unknown[0]!r}; choose from all, {TABLES.choices}")
    return [name for name in TABLES if name in names or "all" in names]


def render(
    found: Sequence[Benchmark],
    form: Format,
    names: Sequence[str] = ("overview",),
    screen: int | None = None,
) -> str:
    """Return the report as text; `screen` is the width of a terminal that shows bold type."""
    if form == "csv":
        return export.comma_separated(found)
    if form == "runs":
        return export.runs_comma_separated(found)
    if form == "json":
        return export.as_json(found)
    if form == "html":
        from avcil.incremental.report.formats.page import page

        own = [name for name in TABLES if isinstance(TABLES[name], OfEach)]
        across = [name for name in TABLES if name not in own]
        sections = [(benchmark, make_tables([benchmark], own)) for benchmark in found]
        return page(sections, make_tables(found, across))
    tables = make_tables(found, names)
    if form == "markdown":
        return text.markdown(tables)
    if form == "latex":
        return latex.document(tables)
    return text.terminal(tables, screen)


def make_tables(found: Sequence[Benchmark], names: Iterable[str]) -> list[Table]:
    """Return the tables of these names that the runs can fill, table by table."""
    targets = read_targets()
    return [table for name in names for table in TABLES[name].tables(found, targets)]
