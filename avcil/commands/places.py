"""Where things lie on a user's disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avcil.errors import AvcilError

DATA = Annotated[
    Path, typer.Option("--data", envvar="AVCIL_DATA", help="Folder of clips, splits and caches.")
]
RUNS = Annotated[Path, typer.Option("--runs", envvar="AVCIL_RUNS", help="Folder of trained runs.")]


class NoCache(AvcilError, FileNotFoundError):
    """There is no cache where one was looked for, or more than one."""


def cache_path(data: Path, dataset: str) -> Path:
    """Return where the cache of a data set lies unless --cache says otherwise."""
    return data / dataset / "features.zarr"


def new_cache(cache: str | None, data: Path, dataset: str) -> Path | str:
    """Return the folder or URL that --cache names for writing, or the folder of the data set."""
    if cache is None:
        return cache_path(data, dataset)
    return cache if "://" in cache else Path(cache)


def find_cache(cache: Path | str | None, data: Path, dataset: str | None) -> Path | str:
    """Return the cache that --cache, --dataset, or the only one on disk points to.

    Raises:
        NoCache: there is none, or several to choose from.
    """
    if cache is not None:
        return str(cache) if "://" in str(cache) else Path(cache)
    if dataset is not None:
        path = cache_path(data, dataset)
        if path.exists():
            return path
        raise NoCache(
            f"no cache of {dataset!r} at {path}: make one with `avcil extract --dataset {dataset}`"
        )
    found = sorted(data.glob("*/features.zarr"))
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.parent.name for path in found)
        raise NoCache(f"{data} holds caches of {names}: choose one with --dataset")
    raise NoCache(
        f"no cache below {data}: make one with `avcil extract --dataset NAME`, "
        "or try `avcil extract --dataset demo`"
    )
