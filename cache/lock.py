"""One writer a cache: a lock that the kernel drops when its process dies.

The file's content names the holder, for the message only. What counts is the advisory lock, so the
file that a killed process leaves behind is in nobody's way.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import weakref
from pathlib import Path
from typing import BinaryIO

from avcil.cache.schema import CacheBusy

_held: weakref.WeakSet[WriteLock] = weakref.WeakSet()


class WriteLock:
    """The right to write a cache, from `acquire` to `release`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        _held.add(self)

    @classmethod
    def acquire(cls, path: Path) -> WriteLock:
        """Take the lock at once.

        Raises:
            CacheBusy: another live process holds it.
            OSError: the file cannot be written.
        """
        file = path.open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _holder(file)
            file.close()
            raise CacheBusy(
                f"{path.parent.parent} is being written by {holder}: wait for it, or stop it first"
            ) from error
        lock = cls(file)
        try:
            lock._sign()
        except OSError:
            lock.release()
            raise
        return lock

    def _sign(self) -> None:
        owner = {"pid": os.getpid(), "host": socket.gethostname()}
        os.ftruncate(self._file.fileno(), 0)
        os.write(self._file.fileno(), json.dumps(owner).encode())

    def check(self) -> None:
        """Hold: the kernel takes this lock from no live process."""

    def release(self) -> None:
        """Let others write."""
        self._file.close()


def _forget_in_child() -> None:
    """Close the locks that a forked child inherits: it would hold them after its parent's death."""
    for lock in tuple(_held):
        lock.release()


os.register_at_fork(after_in_child=_forget_in_child)


def _holder(file: BinaryIO) -> str:
    file.seek(0)
    try:
        owner = json.loads(file.read())
        return f"process {owner['pid']} on {owner['host']}"
    except (ValueError, LookupError, TypeError):
        return "another process"  # it has the lock, but has not signed yet
