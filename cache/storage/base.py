"""The files of a cache, wherever it lies: a local folder, or a bucket of an object store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from zarr.abc.store import Store


def is_url(path: Path | str) -> bool:
    """Tell a URL such as s3://bucket/features.zarr from a local path."""
    return "://" in str(path)


class Lock(Protocol):
    """The right to write a cache, until it is released."""

    def check(self) -> None:
        """Raise CacheBusy where another process has taken it meanwhile."""

    def release(self) -> None:
        """Let others write."""


class Files(ABC):
    """A cache's small files, and the Zarr store of its arrays. A key is a path below the cache."""

    where: str
    """The path or URL of the cache."""
    folder: Path | None
    """The folder, where the cache is local."""
    store: Store
    """The arrays, for zarr-python."""

    @abstractmethod
    def read(self, key: str) -> bytes | None:
        """Return a file's content, or None where there is none."""

    @abstractmethod
    def read_all(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the contents of files, in order."""

    @abstractmethod
    def names(self, prefix: str) -> list[str]:
        """List what lies directly below a folder of the cache; "" is the cache itself."""

    @abstractmethod
    def write(self, key: str, content: bytes) -> None:
        """Replace a file in one step, durably."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove a file, if it is there."""

    @abstractmethod
    def delete_folder(self, prefix: str) -> None:
        """Remove everything below a folder of the cache."""

    @abstractmethod
    def sync(self, array: str, key: str) -> None:
        """Make what Zarr wrote for an array durable, and its name."""

    @abstractmethod
    def sweep(self) -> None:
        """Remove what a killed writer left behind: files that never got their name."""

    @abstractmethod
    def lock(self) -> Lock:
        """Take the right to write, at once.

        Raises:
            CacheBusy: another live process has it.
        """

    @abstractmethod
    def size_bytes(self) -> int:
        """Return the size of all files."""


LOCK = "status/lock"
