"""`avcil demo`."""

from __future__ import annotations

from pathlib import Path

import typer

from avcil.commands.extract import extract
from avcil.commands.options import DATA, RUNS
from avcil.commands.report import report
from avcil.commands.train import train

METHODS = "guided,finetune,joint"
SEEDS = "0,1,2"


def demo(data: DATA = Path("data"), runs: RUNS = Path("runs")) -> None:
    """Run the whole pipeline on built-in clips, in a few minutes.

    Renders 400 small video files, extracts their tokens, trains three methods with three seeds
    each, and prints a table of results. Takes a few minutes on two CPU cores and downloads
    nothing. The encoders are small and have random weights: the figures show that the pipeline
    works and say nothing about SAM-Audio.

    It runs these three commands, which you can also run one by one:

    ```
    avcil extract --dataset demo
    avcil train --dataset demo --method guided,finetune,joint --seeds 0,1,2
    avcil report runs/demo
    ```

    To use other folders than `data` and `runs`:

    ```
    avcil demo --data demo/data --runs demo/runs
    ```
    """
    folders = _folder_options(data, runs)
    _announce(f"avcil extract --dataset demo{folders['data']}", "clips to tokens, once")
    extract(dataset="demo", data=data)
    _announce(
        f"avcil train --dataset demo --method {METHODS} --seeds {SEEDS}{folders['both']}",
        "tokens to accuracy",
    )
    train(dataset="demo", data=data, runs=runs, method=METHODS, seeds=SEEDS)
    folder = runs / "demo"
    _announce(f"avcil report {folder}", "runs to tables")
    report([folder])
    typer.echo(NEXT.format(data=folders["data"], folder=folder))


NEXT = """
Next steps:
  avcil train --dataset demo --modality audio{data}    # audio tokens only
  avcil report {folder} --format html --output report.html    # figures, and every run
  avcil predict RUN CLIP                         # classes of a clip, by a run named above
  avcil extract --dataset folder --videos DIR    # your clips, DIR/<split>/<class>/*.mp4
  avcil train --help                             # methods, heads, recipes, settings"""


def _folder_options(data: Path, runs: Path) -> dict[str, str]:
    """Return the options that the printed commands need if the folders are not the defaults."""
    own_data = "" if data == Path("data") else f" --data {data}"
    own_runs = "" if runs == Path("runs") else f" --runs {runs}"
    return {"data": own_data, "both": own_data + own_runs}


def _announce(command: str, meaning: str) -> None:
    typer.secho(f"\n$ {command}", bold=True, nl=False)
    typer.secho(f"    # {meaning}", dim=True)
