"""`avcil report`: tables of finished runs."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Optional

import typer


class Format(StrEnum):
    """How a report is written."""

    TABLE = "table"
    MARKDOWN = "markdown"
    CSV = "csv"


def report(
    folders: Annotated[
        Optional[list[Path]],  # noqa: UP045 - typer reads this form on every version
        typer.Argument(
            metavar="[RUNS]...",
            help="Run folders, or folders that hold some.",
            show_default="all below --runs",
        ),
    ] = None,
    runs: Annotated[
        Path, typer.Option(envvar="AVCIL_RUNS", help="Where runs are when none are named.")
    ] = Path("runs"),
    form: Annotated[Format, typer.Option("--format", help="What to write.")] = Format.TABLE,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="File to write.", show_default="standard output"),
    ] = None,
) -> None:
    """Compare finished runs: mean accuracy, average forgetting, deviation over seeds.

    Runs that differ only in seed and class order make one row. Rows stand in one table when they
    were trained on the same cache in the same number of tasks. Runs that are damaged, unfinished
    or written by another version are named on standard error and left out.

    All runs as a table; one dataset for a README; a file for a spreadsheet:

        avcil report

        avcil report runs/ave --format markdown

        avcil report --format csv --output runs.csv
    """
    from avcil.incremental.report.make import make_report

    make_report(folders or [runs], form.value, output)
