"""`avcil extract`: from clips to a cache of tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from avcil.benchmarks.cards import cards
from avcil.commands.options import COMPRESSION, DATA, ENGINE, GPUS, NUMBERS
from avcil.extract.encoders import ENCODERS, RELEASES

if TYPE_CHECKING:
    from avcil.extract.pipeline import Summary

SOME_CLIPS_FAILED = 3
TRIAL = 4

# Defaults that depend on the data set are given in the help text.
DATASET = Annotated[
    str,
    typer.Option(
        help=f"{', '.join(cards())}; folder or csv for your own clips; or `my_data.py:function` or "
        "`package.module:function`."
    ),
]
VIDEOS = Annotated[
    Path | None,
    typer.Option(help="Folder of clips.  [default: DATA/DATASET/videos]", show_default=False),
]
SPLITS = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the lists of clips; for csv, the table.  [default: DATA/DATASET/splits]",
        show_default=False,
    ),
]
SPLIT_NAMES = Annotated[
    str | None,
    typer.Option(
        help="Other names of the splits, such as train=learn,test=exam; for folder and csv.",
        show_default=False,
    ),
]
ENCODER = Annotated[
    str | None,
    typer.Option(
        help=f"{', '.join([*RELEASES, *ENCODERS])}; a release's folder or Hugging Face id; or "
        "`my_encoder.py:Name` or `package.module:Name`.  [default: sam-audio; demo: tiny]",
        show_default=False,
    ),
]
CACHE = Annotated[
    str | None,
    typer.Option(
        help="Folder or URL of the cache.  [default: DATA/NAME/features.zarr]", show_default=False
    ),
]
DEVICE = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
PRECISION = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    typer.Option(
        help="Precision of the vision tower; auto is fp32 on a CPU, and on a GPU bf16, or fp16 if "
        "it has no bf16."
    ),
]
LIMIT = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Trial run: encode this many clips, estimate the rest, and exit with status 4.",
        show_default=False,
    ),
]
RATE = Annotated[
    float | None,
    typer.Option(
        min=0.1,
        max=1000,
        help="Frames per second that become tokens.  [default: 25; demo: 8]",
        show_default=False,
    ),
]
SECONDS = Annotated[
    float | None,
    typer.Option(
        min=0.1,
        max=3600,
        help="Length to which clips are cut.  [default: 10; demo: 2]",
        show_default=False,
    ),
]
WORKERS = Annotated[
    int | None,
    typer.Option(
        min=1, help="Decoding processes.  [default: from the number of cores]", show_default=False
    ),
]
MAX_FAILURES = Annotated[
    str,
    typer.Option(
        help="Largest fraction of clips allowed to fail; up to 20 clips are always tolerated."
    ),
]
SILENT = Annotated[
    Literal["refuse", "zeros"],
    typer.Option(help="Clips without sound: refuse them, or encode zeros, with a note."),
]
PATIENCE = Annotated[
    float, typer.Option(min=0.1, help="Give up decoding a file after this many seconds.")
]
RETRY_FAILED = Annotated[
    bool, typer.Option("--retry-failed", help="Try again the clips that failed in an earlier run.")
]


def extract(
    dataset: DATASET,
    videos: VIDEOS = None,
    splits: SPLITS = None,
    encoder: ENCODER = None,
    cache: CACHE = None,
    data: DATA = Path("data"),
    device: DEVICE = "auto",
    precision: PRECISION = "auto",
    rate: RATE = None,
    seconds: SECONDS = None,
    workers: WORKERS = None,
    max_failures: MAX_FAILURES = "5%",
    retry_failed: RETRY_FAILED = False,
    gpus: GPUS = None,
    engine: ENGINE = "local",
    silent: SILENT = "refuse",
    patience: PATIENCE = 120.0,
    limit: LIMIT = None,
    numbers: NUMBERS = None,
    compression: COMPRESSION = None,
    split_names: SPLIT_NAMES = None,
) -> None:
    """Run frozen encoders over clips once and keep their tokens in a cache.

    You can interrupt it at any time: the same command resumes where it stopped. A clip that cannot
    be decoded is recorded with the reason and does not stop the others.

    Exit status: 0 done, 1 error, 2 wrong usage, 3 done, but some clips failed, 4 trial run.

    ```
    avcil extract --dataset demo
    avcil extract --dataset vs100 --encoder facebook/sam-audio-large
    avcil extract --dataset vs100 --gpus 4 --cache s3://my-bucket/vs100.zarr
    avcil extract --dataset folder --videos my-clips --encoder tiny --seconds 5
    ```
    """
    from avcil.api.extraction import extract
    from avcil.extract.datasets.names import split_names as read_split_names

    summary = extract(
        dataset,
        videos=videos,
        splits=splits,
        encoder=encoder,
        cache=cache,
        data=data,
        device=device,
        precision=precision,
        rate=rate,
        seconds=seconds,
        workers=workers,
        max_failures=_share(max_failures),
        retry_failed=retry_failed,
        gpus=gpus,
        engine=engine,
        silent=silent,
        patience=patience,
        limit=limit,
        numbers=numbers,
        compression=compression,
        split_names=read_split_names(split_names or ""),
    )
    _show(summary)
    if summary.is_trial:
        _forecast(summary)
        raise typer.Exit(TRIAL)
    if summary.failures:
        raise typer.Exit(SOME_CLIPS_FAILED)


def _share(text: str) -> float:
    """Read "5%" or "0.05"."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise typer.BadParameter(
            f"{text!r} is not a fraction: write 5% or 0.05", param_hint="--max-failures"
        )
    return share


def _show(summary: Summary) -> None:
    """Print what was done and what failed."""
    good = summary.clips - summary.left - len(summary.failures)
    print(
        f"{good} of {summary.clips} clips are in {summary.path} "
        f"({summary.encoded} new, {summary.duration_s:.1f} s)"
    )
    reasons = sorted(summary.failures.items())
    for clip, reason in reasons[:20]:
        print(f"failed: {clip}: {reason}")
    if len(reasons) > 20:
        print(f"and {len(reasons) - 20} more")
    if reasons:
        print("after fixing them, run the same command with --retry-failed")


def _forecast(summary: Summary) -> None:
    """Print how long the clips left by a trial will take, and their size."""
    from avcil.extract.pipeline import free_bytes

    free = free_bytes(summary.path)
    room = "" if free is None else f" ({_size(free)} are free)"
    print(
        f"trial: {summary.clips_per_s:.2f} clips/s; the remaining {summary.left} clips will take "
        f"about {_duration(summary.left / max(summary.clips_per_s, 1e-9))} and "
        f"{_size(summary.left * summary.clip_bytes)}{room}; "
        "run the same command without --limit to continue after the finished shards"
    )


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"
