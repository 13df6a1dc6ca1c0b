"""A cache in a local folder, or on a file system that several machines share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from zarr.storage import LocalStore

from avcil.atomic import replace_file, sync_folder
from avcil.cache.files import Files, Lock
from avcil.cache.layout import LOCK


class LocalFiles(Files):
    """The files of a folder."""

    folder: Path

    def __init__(self, folder: Path, *, write: bool) -> None:
        self.where = str(folder)
        self.folder = folder
        self.store = LocalStore(folder, read_only=not write)

    def read(self, key: str) -> bytes | None:
        """See Files."""
        try:
            return (self.folder / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_all(self, keys: Sequence[str]) -> list[bytes | None]:
        """See Files."""
        return [self.read(key) for key in keys]

    def names(self, prefix: str) -> list[str]:
        """See Files."""
        below = self.folder / prefix
        return [path.name for path in below.iterdir()] if below.is_dir() else []

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
            partial.unlink(missing_ok=True)  # its writer, killed just now, may have renamed it

    def lock(self) -> Lock:
        """See Files."""
        from avcil.cache.lock import WriteLock  # late: fcntl

        path = self.folder / LOCK
        path.parent.mkdir(parents=True, exist_ok=True)
        return WriteLock.acquire(path)

    def size_bytes(self) -> int:
        """See Files."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
