"""Find clips in folders."""

from __future__ import annotations

import os
from pathlib import Path

from avcil.extract.errors import DatasetError

SUFFIXES = {
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".m2t", ".m2ts", ".m4v",
    ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".ogm", ".ogv", ".qt", ".rm",
    ".rmvb", ".ts", ".vob", ".webm", ".wmv",
}  # fmt: skip


def is_clip(path: Path) -> bool:
    """Return whether a file is a clip, by its name; macOS writes `._x.mp4` beside `x.mp4`."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def folders_in(root: Path) -> list[Path]:
    """Return the folders in a folder, except hidden ones.

    Raises:
        DatasetError: it cannot be read.
    """
    try:
        return sorted(each for each in root.iterdir() if each.is_dir() and each.name[0] != ".")
    except OSError as error:
        raise _unreadable(error) from error


def files_below(root: Path) -> list[Path]:
    """Return all files in a folder and its subfolders, except hidden folders.

    Links are followed. Since links may form a loop, each folder is read once, and the parents of
    `root` are not read.

    Raises:
        DatasetError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise _unreadable(error) from error

    above = {*root.absolute().parents, *root.resolve().parents}
    seen = {_identity(folder) for folder in above}
    found: list[Path] = []
    for folder, below, files in os.walk(root, onerror=refuse, followlinks=True):
        identity = _identity(Path(folder))
        if identity in seen:
            below.clear()
            continue
        seen.add(identity)
        below[:] = sorted(name for name in below if name[0] != ".")
        found += [Path(folder, name) for name in files]
    return sorted(found)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _unreadable(error: OSError) -> DatasetError:
    return DatasetError(f"{error.filename} cannot be read: {error.strerror}")
