"""The command `avcil`."""

import sys

import typer

from avcil.errors import AvcilError

app = typer.Typer(
    name="avcil",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def avcil() -> None:
    """Audio-visual class-incremental learning on frozen SAM-Audio features."""


def main() -> None:
    """Run the command; an error the user can mend is one line and exit status 1."""
    try:
        app()
    except AvcilError as error:
        from avcil.progress import console

        console().print(f"error: {error}", style="red", markup=False)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
