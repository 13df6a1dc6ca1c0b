"""Interface to the files of a cache, in a local folder or a bucket of an object store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from zarr.abc.store import Store


LOCK = "status/lock"


def is_url(path: Path | str) -> bool:
    """Return whether a path is a URL such as s3://bucket/features.zarr."""
    return "://" in str(path)


class Lock(Protocol):
    """The exclusive right to write a cache, until it is released."""

    def check(self) -> None:
        """Raise CacheBusy if another process has taken the lock in the meantime."""

    def release(self) -> None:
        """Release the lock."""


class Files(ABC):
    """The small files of a cache, and the Zarr store of its arrays. Keys are relative paths."""

    where: str
    """The path or URL of the cache."""
    folder: Path | None
    """The folder of a local cache, else None."""
    store: Store
    """The arrays, for zarr-python."""

    @abstractmethod
    def read(self, key: str) -> bytes | None:
        """Return a file's content, or None if it does not exist."""

    @abstractmethod
    def read_all(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the contents of files, in order."""

    @abstractmethod
    def names(self, prefix: str) -> list[str]:
        """List the names directly below a folder of the cache; "" is the cache itself."""

    @abstractmethod
    def write(self, key: str, content: bytes) -> None:
        """Replace a file in one step, durably."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove a file, if it exists."""

    @abstractmethod
    def delete_folder(self, prefix: str) -> None:
        """Remove everything below a folder of the cache."""

    @abstractmethod
    def sync(self, array: str, key: str) -> None:
        """Flush a file that Zarr wrote for an array, and its folders, to disk."""

    @abstractmethod
    def sweep(self) -> None:
        """Remove the temporary files that a killed writer left behind."""

    @abstractmethod
    def lock(self) -> Lock:
        """Take the lock without waiting.

        Raises:
            CacheBusy: another running process holds it.
        """

    @abstractmethod
    def size_bytes(self) -> int:
        """Return the size of all files."""
