"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avcil.api.caches import Compression, Numbers
from avcil.runtime.cluster import Engine

DATA = Annotated[
    Path, typer.Option("--data", envvar="AVCIL_DATA", help="Folder of clips, splits and caches.")
]
RUNS = Annotated[Path, typer.Option("--runs", envvar="AVCIL_RUNS", help="Folder of trained runs.")]

NUMBERS = Annotated[
    Numbers | None,
    typer.Option(
        help="int8 halves the size, with less precision.  [default: of the cache, or float16]",
        show_default=False,
    ),
]


COMPRESSION = Annotated[
    Compression | None,
    typer.Option(
        help="zstd saves little space and is slow to read.  [default: of the cache, or none]",
        show_default=False,
    ),
]


GPUS = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of GPUs, one process each.  [default: one; ray: all of the cluster]",
        show_default=False,
    ),
]


ENGINE = Annotated[
    Engine,
    typer.Option(help="local: this machine; ray: a Ray cluster (needs the extra `ray`)."),
]
