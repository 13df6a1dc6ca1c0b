"""Atomic replacement of files, and locks between processes.

A reader sees either the old or the new content of a file, also after a kill. The kernel releases a
lock when its process dies. The content of a lock file names the holder, for messages only: the
advisory lock decides, so the file that a killed process leaves behind blocks nobody.
"""

from __future__ import annotations

import codecs
import fcntl
import json
import os
import socket
import weakref
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self


def read_text(path: Path) -> str:
    """Read a text that a person saved: UTF-8, or what its byte order mark says (UTF-8, UTF-16).

    Raises:
        OSError: the file cannot be read.
        UnicodeError: it is in another encoding; the text says so.
    """
    content = path.read_bytes()
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnicodeError(f"it is not UTF-8 (byte {error.start + 1}): save it as UTF-8") from error


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Replace a file atomically and durably, with the permissions that the umask gives.

    A kill leaves at most one `.NAME.partial`, which the next write overwrites.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


class LockHeld(Exception):
    """Another running process holds the lock; the text names it."""


class FileLock:
    """A lock from `acquire` to `release`, or to the end of the context or of the process."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        _held.add(self)

    @classmethod
    def acquire(cls, path: Path) -> Self:
        """Take the lock without waiting.

        Raises:
            LockHeld: another running process holds it.
            OSError: the file cannot be written, or its file system does not support locks.
        """
        file = path.open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _holder(file)
            file.close()
            raise LockHeld(holder) from error
        except OSError:
            file.close()
            raise
        lock = cls(file)
        try:
            owner = {"pid": os.getpid(), "host": socket.gethostname()}
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), json.dumps(owner).encode())
        except OSError:
            lock.release()
            raise
        return lock

    def release(self) -> None:
        """Release the lock."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def _release_in_child() -> None:
    """Release inherited locks in a forked child, which would hold them after its parent's death."""
    for lock in tuple(_held):
        lock.release()


os.register_at_fork(after_in_child=_release_in_child)


def _holder(file: BinaryIO) -> str:
    file.seek(0)
    try:
        owner = json.loads(file.read())
        return f"process {owner['pid']} on {owner['host']}"
    except (ValueError, LookupError, TypeError):
        return "another process"  # it holds the lock but has not written the file yet
