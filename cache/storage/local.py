"""A cache in a local folder, or on a file system that several machines share."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from zarr.storage import LocalStore

from avcil.cache.errors import CacheBusy, CacheUnreadable, CacheUnwritable
from avcil.cache.storage.base import LOCK, Files, Lock
from avcil.runtime.files import FileLock, LockHeld, replace_file, sync_folder


class LocalFiles(Files):
    """The files of a folder."""

    folder: Path

    def __init__(self, folder: Path, *, write: bool) -> None:
        self.where = str(folder)
        self.folder = folder
        self.store = LocalStore(folder, read_only=not write)

    def read(self, key: str) -> bytes | None:
        """See Files."""
        with _unless_absent(self.where):
            return (self.folder / key).read_bytes()
        return None

    def read_all(self, keys: Sequence[str]) -> list[bytes | None]:
        """See Files."""
        return [self.read(key) for key in keys]

    def names(self, prefix: str) -> list[str]:
        """See Files."""
        with _unless_absent(self.where):
            return [path.name for path in (self.folder / prefix).iterdir()]
        return []

    def write(self, key: str, content: bytes) -> None:
        """See Files."""
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)

    def delete(self, key: str) -> None:
        """See Files."""
        with suppress(FileNotFoundError, NotADirectoryError):
            (self.folder / key).unlink()

    def delete_folder(self, prefix: str) -> None:
        """See Files."""
        shutil.rmtree(self.folder / prefix, ignore_errors=True)

    def sync(self, array: str, key: str) -> None:
        """See Files."""
        top = self.folder / array
        path = top / key
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        while path != top:
            path = path.parent
            sync_folder(path)

    def sweep(self) -> None:
        """See Files."""
        for partial in self.folder.rglob("*.partial"):
            partial.unlink(missing_ok=True)  # a writer that was just killed may have renamed it

    def lock(self) -> Lock:
        """See Files."""
        path = self.folder / LOCK
        path.parent.mkdir(parents=True, exist_ok=True)
        return WriteLock.acquire(path)

    def size_bytes(self) -> int:
        """See Files."""
        with readable(self.where):
            return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


class WriteLock:
    """The exclusive right to write a cache, from `acquire` to `release`."""

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    @classmethod
    def acquire(cls, path: Path) -> WriteLock:
        """Take the lock without waiting.

        Raises:
            CacheBusy: another running process holds it.
            OSError: the file cannot be written.
        """
        try:
            return cls(FileLock.acquire(path))
        except LockHeld as holder:
            raise CacheBusy(
                f"{path.parent.parent} is being written by {holder}: wait for it, or stop it first"
            ) from holder

    def check(self) -> None:
        """Do nothing: a running process never loses this lock."""

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()


@contextmanager
def readable(path: Path | str) -> Iterator[None]:
    """Turn errors of the file system into CacheUnreadable, except for missing files."""
    try:
        yield
    except OSError as error:
        if error.errno in _ABSENT or error.errno is None:  # None: raised by zarr or by us
            raise
        if error.errno in (errno.EACCES, errno.EPERM):
            remedy = "ask its owner for access (`chmod -R a+rX` on the cache), or use another cache"
        else:
            remedy = "check the disk or the network drive, then run the same command again"
        raise CacheUnreadable(
            f"cannot read {error.filename or path}: {error.strerror}: {remedy}"
        ) from error


_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


@contextmanager
def _unless_absent(path: str) -> Iterator[None]:
    """Like `readable`, but leave the context if there is no such file."""
    try:
        with readable(path):
            yield
    except OSError as error:
        if error.errno not in _ABSENT:
            raise


_FOLDER = "choose a folder that you may write to, with --cache"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ELSEWHERE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
)


@contextmanager
def writable(path: Path | str, safe: int | None = None, elsewhere: str = _FOLDER) -> Iterator[None]:
    """Turn errors of the file system into CacheUnwritable.

    Args:
        path: what is written.
        safe: number of shards already written, for the message.
        elsewhere: remedy for a path that can never be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL + _ELSEWHERE:
            raise
        full = error.errno in _FULL
        remedy = "make room, then run the same command again" if full else elsewhere
        kept = "" if safe is None else f"; {safe} shards are written and stay"
        raise CacheUnwritable(
            f"cannot write {path}: {os.strerror(error.errno)}{kept}: {remedy}"
        ) from error
