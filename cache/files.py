"""The files of a cache, read wherever it lies: a local folder, or a store that Zarr knows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avcil.cache.schema import CacheNotFound, CacheUnwritable

if TYPE_CHECKING:
    from zarr.abc.store import Store


def is_url(path: Path | str) -> bool:
    """Tell a URL such as s3://bucket/features.zarr from a local path."""
    return "://" in str(path)


def local_folder(path: Path | str) -> Path:
    """Return where a cache may be written.

    Raises:
        CacheUnwritable: it is a URL.
    """
    if is_url(path):
        raise CacheUnwritable(
            f"a cache is written to a local folder, not to {path}: name a folder with --cache, "
            "and copy it there later"
        )
    return Path(path)


class Files:
    """Read access to a cache's small files, and the Zarr store of its arrays."""

    def __init__(self, where: str, store: Store, folder: Path | None) -> None:
        self.where = where
        self.store = store
        self.folder = folder  # None where the cache is not local

    @classmethod
    def at(cls, path: Path | str) -> Files:
        """Open a local folder, or a URL such as s3://bucket/features.zarr."""
        from zarr.storage import LocalStore

        if is_url(path):
            return cls(str(path), _remote(str(path)), None)
        folder = Path(path)
        return cls(str(folder), LocalStore(folder, read_only=True), folder)

    def read(self, key: str) -> bytes | None:
        """Return a file's content, or None where there is none."""
        if self.folder is not None:
            try:
                return (self.folder / key).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None
        return _read_key(self.store, key)

    def names(self, prefix: str) -> list[str]:
        """List the files directly below a folder of the cache."""
        if self.folder is not None:
            below = self.folder / prefix
            return [path.name for path in below.iterdir()] if below.is_dir() else []
        return _list_keys(self.store, prefix)


def _remote(url: str) -> Store:
    from zarr.storage import FsspecStore

    try:
        return FsspecStore.from_url(url, read_only=True)
    except (ImportError, ValueError) as error:  # a library for this protocol is not installed
        raise CacheNotFound(
            f"cannot read {url}: {error}; for S3: pip install 'avcil[s3]'"
        ) from error


def _read_key(store: Store, key: str) -> bytes | None:
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    content = sync(store.get(key, prototype=default_buffer_prototype()))
    return None if content is None else content.to_bytes()


def _list_keys(store: Store, prefix: str) -> list[str]:
    from zarr.core.sync import sync

    async def collect() -> list[Any]:
        return [key async for key in store.list_dir(prefix)]

    keys: Iterable[str] = sync(collect())
    return list(keys)
