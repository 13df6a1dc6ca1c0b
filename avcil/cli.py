"""The command `avcil`: its subcommands, and how errors are shown.

Exit status: 0 done, 1 an error that the user can fix, 2 wrong usage, 3 finished but some clips
failed, 4 a trial run ended, 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from avcil import __version__
from avcil.commands import cache
from avcil.commands.check import check
from avcil.commands.datasets import datasets
from avcil.commands.demo import demo
from avcil.commands.extract import extract
from avcil.commands.list import list_names
from avcil.commands.predict import predict
from avcil.commands.report import report
from avcil.commands.train import train
from avcil.errors import AvcilError

app = typer.Typer(
    name="avcil",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("extract")(extract)
app.command("train")(train)
app.command("report")(report)
app.command("predict")(predict)
app.add_typer(cache.app, name="cache")
app.command("datasets")(datasets)
app.command("list")(list_names)
app.command("check")(check)
app.command("demo")(demo)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"avcil {__version__}")
        raise typer.Exit


@app.callback()
def avcil(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Audio-visual class-incremental learning on frozen SAM-Audio features.

    Encode clips once, then train and compare methods on the cached tokens in minutes. Start with
    `avcil demo`, or with `avcil extract`, `avcil train` and `avcil report`.
    """


def main() -> None:
    """Run the command; an error that the user can fix is one line and exit status 1."""
    try:
        app()
    except AvcilError as error:
        from avcil.runtime.progress import console

        console().print(f"error: {error}", style="red", markup=False)
        sys.exit(1)
    except SystemExit as stop:
        # Typer turns an interrupt into an exit. A job that says more about it gives it arguments.
        interrupt = getattr(stop.__context__, "__cause__", None)
        if isinstance(interrupt, KeyboardInterrupt) and not interrupt.args:
            print("interrupted", file=sys.stderr)
        raise
