"""`avcil report`: tables of finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from avcil.commands.options import RUNS
from avcil.incremental.report.tables import TABLES

Format = Literal["table", "markdown", "latex", "csv", "json", "html"]
Picture = Literal["svg", "pdf", "png"]


def report(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUNS]...",
            help="Run folders, or folders that contain some.",
            show_default="all below --runs",
        ),
    ] = None,
    runs: RUNS = Path("runs"),
    form: Annotated[Format, typer.Option("--format", help="How to write it.")] = "table",
    output: Annotated[
        Path | None, typer.Option(help="File to write.", show_default="standard output")
    ] = None,
    tables: Annotated[
        str, typer.Option(help=f"Tables, separated by commas: all, {TABLES.choices}.")
    ] = "overview",
    figures: Annotated[
        Path | None, typer.Option(help="Also write all figures into this folder.")
    ] = None,
    figure_format: Annotated[Picture, typer.Option(help="How to write figures.")] = "svg",
    check: Annotated[
        str | None,
        typer.Option(help="Compare with targets instead: a CSV file, or `published`."),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0.0, help="For --check: largest difference allowed, in percentage points."
        ),
    ] = 1.0,
) -> None:
    """Compare finished runs: tables, statistics, figures.

    Runs that differ only in seed and class order make one row, with mean and standard deviation.
    Rows share a table if they were trained on the same clips of one cache in tasks of the same
    sizes. Runs that are damaged, unfinished or written by another version are named on standard
    error and left out.

    Mean accuracy averages the accuracy after each task; average forgetting is how far earlier tasks
    fell below their best. Tables 1 to 4 of the paper are `methods`, `losses`, `modalities` and
    `tasks`; `pairs` tests which differences are more than chance, `caches` how much of a difference
    is due to the features.

    ```
    avcil report                                 all runs, on the terminal
    avcil report runs/ave --format markdown      one data set, for a README
    avcil report --tables all --format latex --output tables.tex
    avcil report --format html --output report.html --figures figures
    avcil report --check published --tolerance 2      exit status 1 if one misses
    ```
    """
    from avcil.incremental.report.make import check_report, make_report

    roots = folders or [runs]
    if check is not None:
        _refuse_beside_check(form, output, tables, figures)
        if not check_report(roots, check, tolerance):
            raise typer.Exit(1)
        return
    make_report(
        roots,
        form,
        output,
        tables.split(","),
        (figures, figure_format) if figures else None,
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
            f"it prints a comparison on standard output, without {', '.join(ignored)}: "
            "run the report and the check one after the other",
            param_hint="--check",
        )
