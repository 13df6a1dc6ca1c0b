"""`avcil.report`: tables, figures and pages of finished runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from avcil.api.runs import Run
from avcil.incremental.report.figures.write import FigureFiles, Picture, choose_figures
from avcil.incremental.report.make import Format, make_report
from avcil.runtime.stopping import interrupts_raise


def report(
    runs: Path | str | Run | Iterable[Path | str | Run] = "runs",
    *,
    format: Format = "table",
    output: Path | str | None = None,
    tables: Sequence[str] = ("overview",),
    figures: Path | str | None = None,
    only: Sequence[str] | None = None,
    figure_format: Picture = "svg",
    figure_size: Literal["column", "page"] = "column",
    videos: Path | str | None = None,
    columns: int | None = None,
) -> str:
    """Compare finished runs in tables, statistics and figures.

    Runs that are damaged, unfinished or repeated are named on standard error and left out.

    Args:
        runs: runs, run folders, or folders that contain run folders.
        format: of the report; `csv` has a line per row, `runs` one per run.
        output: file to write the report into, too.
        tables: names of tables, or `all`; CSV, JSON and the page always contain everything.
        figures: folder for figures; none are written without it.
        only: kinds of figures to write; all if left out.
        figure_format: file format of figures.
        figure_size: width of figures: a column (3.25 in) or the page (6.75 in) of a paper.
        videos: folder of the clips, for frames beside attention.
        columns: width of a terminal that shows the `table` format with bold type.

    Returns:
        the report as text.

    Raises:
        NoRuns: there is no finished run.
        ConfigError: an unknown name, or a file that cannot be written.
    """
    given = [runs] if isinstance(runs, Path | str | Run) else list(runs)
    roots = [each.folder if isinstance(each, Run) else Path(each) for each in given]
    files = None
    if figures is not None:
        kinds = choose_figures(None if only is None else ",".join(only))
        files = FigureFiles(
            folder=Path(figures), suffix=figure_format, only=kinds, size=figure_size
        )
    with interrupts_raise():
        return make_report(
            roots,
            format,
            None if output is None else Path(output),
            tables,
            files,
            None if videos is None else Path(videos),
            columns,
        )
