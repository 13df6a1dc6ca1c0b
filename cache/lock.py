"""One writer a cache, where the cache is a folder."""

from __future__ import annotations

from pathlib import Path

from avcil.cache.schema import CacheBusy
from avcil.lock import FileLock, LockHeld


class WriteLock:
    """The right to write a cache, from `acquire` to `release`."""

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    @classmethod
    def acquire(cls, path: Path) -> WriteLock:
        """Take the lock at once.

        Raises:
            CacheBusy: another live process holds it.
            OSError: the file cannot be written.
        """
        try:
            return cls(FileLock.acquire(path))
        except LockHeld as holder:
            raise CacheBusy(
                f"{path.parent.parent} is being written by {holder}: wait for it, or stop it first"
            ) from holder

    def check(self) -> None:
        """Hold: the kernel takes this lock from no live process."""

    def release(self) -> None:
        """Let others write."""
        self._lock.release()
