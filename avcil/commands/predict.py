"""`avcil predict`: the classes of clips, by a trained run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from avcil.commands.options import DATA

if TYPE_CHECKING:
    import pandas

SOME_CLIPS_FAILED = 3


def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a trained run.", show_default=False)],
    files: Annotated[
        list[Path],
        typer.Argument(help="Clips, or folders of clips.", show_default=False),
    ],
    top: Annotated[int, typer.Option(min=1, help="Number of classes to print per clip.")] = 3,
    form: Annotated[
        Literal["table", "csv", "json"], typer.Option("--format", help="Output format.")
    ] = "table",
    explain: Annotated[
        Path | None,
        typer.Option(
            help="Folder for a picture per clip: its frames, and which sounds guided which frames. "
            "Only for heads in which audio guides video.",
            show_default=False,
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Encoder, as for avcil extract.  [default: by the name that the run keeps]",
            show_default=False,
        ),
    ] = None,
    data: DATA = Path("data"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    silent: Annotated[
        Literal["refuse", "zeros"],
        typer.Option(help="Clips without sound: refuse them, or encode zeros, with a note."),
    ] = "refuse",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Decoding processes.  [default: from the number of cores]",
            show_default=False,
        ),
    ] = None,
    patience: Annotated[
        float, typer.Option(min=0.1, help="Give up decoding a file after this many seconds.")
    ] = 120.0,
) -> None:
    """Predict the classes of clips with the network of a run after its last task.

    Clips are decoded and encoded as the run's cache was. An encoder that does not have the run's
    fingerprint is refused. Probabilities are the softmax of the network's scores and are not
    calibrated.

    Exit status: 0 done, 1 error, 2 wrong usage, 3 done, but some clips could not be decoded.

    ```
    avcil predict runs/demo/guided-... clip.mp4
    avcil predict runs/demo/guided-... clips --top 1 --format csv
    avcil predict runs/demo/guided-... clip.mp4 --explain maps
    ```
    """
    from avcil.api.prediction import predict

    table = predict(
        run,
        files,
        top=top,
        explain=explain,
        encoder=encoder,
        device=device,
        silent=silent,
        workers=workers,
        patience=patience,
        data=data,
    )
    if form == "csv":
        table.to_csv(sys.stdout, index=False)
    elif form == "json":
        typer.echo(table.to_json(orient="records", indent=1, force_ascii=False))
    else:
        _show(table)
    if table["rank"].isna().any():
        raise typer.Exit(SOME_CLIPS_FAILED)


def _show(table: pandas.DataFrame) -> None:
    """Print the classes below each clip, or the reason why it has none."""
    from avcil.cache.names import printable

    for clip, rows in table.groupby("clip", sort=False):
        typer.echo(printable(str(clip)))
        for row in rows[rows["rank"].notna()].itertuples():
            typer.echo(f"  {row.probability:6.1%}  {printable(row[3])}")
        if note := rows["note"].iloc[0]:
            failed = rows["rank"].isna().any()
            typer.echo(f"  {'no class' if failed else 'note'}: {note}")
