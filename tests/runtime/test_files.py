"""Files that several processes may want to write."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import pytest

from avcil.errors import NoLocks
from avcil.runtime.files import FileLock


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(NoLocks, match=f"{tmp_path} is on a file system without file locks"):
        FileLock.acquire(tmp_path / ".lock")
