"""`avcil report`: tables of finished runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from avcil.commands.options import RUNS
from avcil.incremental.report.tables import TABLES

FIGURES = (
    "accuracy", "forgetting", "validation", "old-new", "tasks", "matrices", "time", "memory",
    "sweep", "losses", "epochs", "confusion", "classes", "features",
    "attention",
)  # fmt: skip
"""As in `avcil.incremental.report.figures.write`."""
Format = Literal["table", "markdown", "latex", "csv", "runs", "json", "html"]
Picture = Literal["svg", "pdf", "png"]
Size = Literal["column", "page"]


def report(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUNS]...",
            help="Run folders, or folders that contain run folders.",
            show_default="all below --runs",
        ),
    ] = None,
    runs: RUNS = Path("runs"),
    form: Annotated[
        Format,
        typer.Option(
            "--format", help="Output format; `csv` has a line per row, `runs` one per run."
        ),
    ] = "table",
    output: Annotated[
        Path | None, typer.Option(help="Output file.", show_default="standard output")
    ] = None,
    tables: Annotated[
        str, typer.Option(help=f"Tables to print, separated by commas: all, {TABLES.choices}.")
    ] = "overview",
    figures: Annotated[
        Path | None, typer.Option(help="Folder for figures; no figures are written without it.")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            help=f"Figures to write, separated by commas: {', '.join(FIGURES)}.",
            show_default="all",
        ),
    ] = None,
    figure_format: Annotated[Picture, typer.Option(help="File format of figures.")] = "svg",
    figure_size: Annotated[
        Size,
        typer.Option(help="Width of figures: a column (3.25 in) or the page (6.75 in) of a paper."),
    ] = "column",
    videos: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the clips, for frames beside attention.",
            show_default="where they were at training: `videos` beside the cache",
        ),
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(help="Instead, compare runs with targets: a CSV file, or `published`."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="Tolerance of --check in percentage points.")
    ] = 1.0,
) -> None:
    """Compare finished runs in tables, statistics and figures.

    Runs that differ only in seed and class order form one row, with mean and standard deviation.
    Rows are in the same table if they were trained on the same clips of one cache, in tasks of the
    same sizes. Runs that are damaged, unfinished or written by another version are left out and
    listed on standard error.

    Mean accuracy is the mean of the accuracies after each task. Average forgetting is how far
    earlier tasks fall below their best accuracy. Tables 1 to 4 of the paper are `methods`,
    `losses`, `modalities` and `tasks`; `pairs` shows which differences are larger than chance, and
    `caches` how much of a difference is due to the features.

    ```
    avcil report                              # all runs, on the terminal
    avcil report runs/ave --format markdown   # one data set, for a README
    avcil report --tables all --format latex --output tables.tex
    avcil report --format html --output report.html --figures figures
    avcil report --figures figures --only accuracy --figure-format pdf
    avcil report --check published --tolerance 2   # status 1 if a target fails
    ```
    """
    from avcil.api.reporting import report
    from avcil.incremental.report.make import check_report, terminal_width

    _refuse_without_figures(figures, only, figure_format, figure_size)
    roots = folders or [runs]
    if check is not None:
        _refuse_beside_check(form, output, tables, figures)
        if not check_report(roots, check, tolerance):
            raise typer.Exit(1)
        return
    text = report(
        roots,
        format=form,
        output=output,
        tables=tables.split(","),
        figures=figures,
        only=None if only is None else only.split(","),
        figure_format=figure_format,
        figure_size=figure_size,
        videos=videos,
        columns=None if output else terminal_width(),
    )
    if output is None:
        sys.stdout.write(text)


def _refuse_without_figures(
    figures: Path | None, only: str | None, suffix: Picture, size: Size
) -> None:
    """Refuse options of figures where none are written."""
    given = {
        "--only": only is not None,
        "--figure-format": suffix != "svg",
        "--figure-size": size != "column",
    }
    ignored = [name for name, there in given.items() if there]
    if ignored and figures is None:
        raise typer.BadParameter(
            f"{', '.join(ignored)} would do nothing: name a folder with --figures",
            param_hint="--figures",
        )


def _refuse_beside_check(
    form: Format, output: Path | None, tables: str, figures: Path | None
) -> None:
    """Refuse options that a comparison with targets would ignore."""
    given = {
        "--format": form != "table",
        "--output": output is not None,
        "--tables": tables != "overview",
        "--figures": figures is not None,
    }
    ignored = [name for name, there in given.items() if there]
    if ignored:
        raise typer.BadParameter(
            f"cannot be combined with {', '.join(ignored)}: run the report and the check one after "
            "the other",
            param_hint="--check",
        )
