"""How tokens lie on disk, as options of the commands that make a cache."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from avcil.cache.schema import Storage


class NumbersOption(StrEnum):
    """See avcil.cache.schema.Storage."""

    float16 = "float16"
    int8 = "int8"


class CompressionOption(StrEnum):
    """See avcil.cache.schema.Storage."""

    none = "none"
    zstd = "zstd"


NUMBERS = Annotated[
    NumbersOption | None,
    typer.Option(
        help="int8 halves the size and loses precision.  [default: of the cache, or float16]",
        show_default=False,
    ),
]
COMPRESSION = Annotated[
    CompressionOption | None,
    typer.Option(
        help="zstd saves little and reads slowly.  [default: of the cache, or none]",
        show_default=False,
    ),
]


def chosen_storage(
    path: Path | str, numbers: NumbersOption | None, compression: CompressionOption | None
) -> Storage | None:
    """Return what was asked for, or None where nothing was: then the cache decides.

    Of what was not asked for, the cache at this path decides as well, if there is one.
    """
    if numbers is None and compression is None:
        return None
    found = _storage_of(path)
    return replace(
        found,
        numbers=numbers.value if numbers else found.numbers,
        compression=compression.value if compression else found.compression,
    )


def _storage_of(path: Path | str) -> Storage:
    from avcil.cache.files import Files
    from avcil.cache.opening import read_header
    from avcil.cache.schema import CacheNotFound, Storage

    try:
        return read_header(Files.at(path)).storage
    except CacheNotFound:
        return Storage()
