"""How tokens lie on disk, as options of the commands that make a cache."""

from __future__ import annotations

from enum import StrEnum
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
    numbers: NumbersOption | None, compression: CompressionOption | None
) -> Storage | None:
    """Return what was asked for, or None where nothing was: then the cache decides."""
    from avcil.cache.schema import Storage

    if numbers is None and compression is None:
        return None
    return Storage(
        numbers=(numbers or NumbersOption.float16).value,
        compression=(compression or CompressionOption.none).value,
    )
