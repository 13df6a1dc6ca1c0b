"""Which cache is meant, and how it stores numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from avcil.errors import AvcilError

if TYPE_CHECKING:
    from avcil.cache.reader import FeatureStore
    from avcil.cache.schema import Storage

Caches: TypeAlias = "Path | str | FeatureStore | Sequence[Path | str | FeatureStore]"
"""One cache or several: paths, URLs, or stores that are open."""


def open_caches(caches: Caches) -> FeatureStore:
    """Open one cache, or several as one: the classes of the second after those of the first.

    Raises:
        CacheError: a cache cannot be read, or they cannot be read as one.
    """
    from avcil.cache.join import join_stores
    from avcil.cache.reader import FeatureStore

    if isinstance(caches, Path | str | FeatureStore):
        caches = [caches]
    return join_stores(
        [each if isinstance(each, FeatureStore) else FeatureStore.open(each) for each in caches]
    )


# Repeated here, because importing them imports NumPy and slows --help down; mypy compares them.
Numbers = Literal["float16", "int8"]
Compression = Literal["none", "zstd"]


class NoCache(AvcilError, FileNotFoundError):
    """No cache was found, or more than one."""


def cache_path(data: Path, dataset: str) -> Path:
    """Return the path of a data set's cache, unless --cache gives another."""
    return data / dataset / "features.zarr"


def new_cache(cache: Path | str | None, data: Path, dataset: str) -> Path | str:
    """Return the folder or URL of the cache to write: --cache, or that of the data set."""
    if cache is None:
        return cache_path(data, dataset)
    return str(cache) if "://" in str(cache) else Path(cache)


def find_cache(cache: Path | str | None, data: Path, dataset: str | None) -> Path | str:
    """Return the cache given by --cache or --dataset, or the only one on disk.

    Raises:
        NoCache: there is none, or several to choose from.
    """
    if cache is not None:
        return str(cache) if "://" in str(cache) else Path(cache)
    if dataset is not None:
        path = cache_path(data, dataset)
        try:
            if path.exists():
                return path
        except PermissionError:
            return path  # opening the cache raises a clear error
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


def chosen_storage(
    path: Path | str, numbers: Numbers | None, compression: Compression | None
) -> Storage | None:
    """Return the requested storage, or None if no option was given.

    Options that were not given are taken from the cache at this path, if there is one.
    """
    if numbers is None and compression is None:
        return None
    found = _storage_of(path)
    return replace(
        found,
        numbers=numbers or found.numbers,
        compression=compression or found.compression,
    )


def _storage_of(path: Path | str) -> Storage:
    from avcil.cache.errors import CacheNotFound
    from avcil.cache.format.load import read_header
    from avcil.cache.schema import Storage
    from avcil.cache.storage.open import open_files

    try:
        return read_header(open_files(path)).storage
    except CacheNotFound:
        return Storage()
