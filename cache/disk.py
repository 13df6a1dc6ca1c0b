"""What a disk that refuses a write means, and what to do about it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avcil.cache.schema import CacheUnwritable

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
    """Turn errors of the disk into one line that says what to do.

    Args:
        path: what is written.
        safe: shards that are written and stay.
        elsewhere: what to do where this path cannot be written at all.
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
