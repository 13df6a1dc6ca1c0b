"""One's own clips, in a folder of folders or a table; and the built-in demo."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from avcil.cache.schema import SPLITS, Split
from avcil.extract.datasets.base import Clip, Dataset, Where
from avcil.extract.demo import CLASSES, demo_clips, render_demo
from avcil.extract.errors import DatasetError

SUFFIXES = {
    ".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv",
}  # fmt: skip
COLUMNS = ("path", "label", "split")


def load_folder(where: Where) -> Dataset:
    """List DIR/<split>/<class>/*, or DIR/<class>/* with a split drawn from the files' names.

    Raises:
        DatasetError: there is no such folder, or no clip in it.
    """
    if where.videos is None or not where.videos.is_dir():
        raise DatasetError(
            f"no folder of clips at {where.videos}: give one with --videos, laid out as "
            "DIR/<split>/<class>/* or DIR/<class>/*"
        )
    clips = tuple(_with_splits(where.videos) or _without_splits(where.videos))
    if not clips:
        raise DatasetError(
            f"{where.videos} has no clips: expected DIR/<split>/<class>/* (splits "
            f"{', '.join(SPLITS)}) or DIR/<class>/*, ending in one of {', '.join(sorted(SUFFIXES))}"
        )
    return _dataset(where.videos.resolve().name, clips)


def load_csv(where: Where) -> Dataset:
    """Read a table with the columns path, label and split.

    Relative paths start at --videos or, left out, at the table's own folder.

    Raises:
        DatasetError: there is no such table, or a row of it is wrong.
    """
    if where.splits is None or not where.splits.is_file():
        raise DatasetError(
            f"no table at {where.splits}: give a csv file with the columns "
            f"{','.join(COLUMNS)} with --splits"
        )
    base = where.videos or where.splits.parent
    with where.splits.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise DatasetError(f"{where.splits} has no column {', '.join(missing)}")
        clips = tuple(_clip(row, base, f"{where.splits}:{reader.line_num}") for row in reader)
    return _dataset(where.splits.stem, clips)


def _dataset(name: str, clips: tuple[Clip, ...]) -> Dataset:
    slug = re.sub(r"[^\w.-]+", "-", name)
    return Dataset(name=slug, classes=tuple(sorted({clip.label for clip in clips})), clips=clips)


def _with_splits(root: Path) -> list[Clip]:
    return [
        Clip(path.relative_to(root).as_posix(), path, folder.name, split)
        for split in SPLITS
        for folder in _folders(root / split)
        for path in _media(folder)
    ]


def _without_splits(root: Path) -> list[Clip]:
    return [
        Clip(path.relative_to(root).as_posix(), path, folder.name, split)
        for folder in _folders(root)
        for path, split in _split(list(_media(folder)))
    ]


def _split(paths: list[Path]) -> Iterator[tuple[Path, Split]]:
    """Divide one class: a tenth each for validation and test, at least one; chosen by name.

    Names decide by their hash, not by their order, which may carry meaning (one camera, one day).
    """
    share = max(1, round(len(paths) / 10)) if len(paths) >= 3 else 0
    ordered = sorted(paths, key=lambda path: hashlib.sha256(path.name.encode()).digest())
    for number, path in enumerate(ordered):
        yield path, "val" if number < share else "test" if number < 2 * share else "train"


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")


def _media(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and path.name[0] != ".":
            yield path


def _clip(row: dict[str, str], base: Path, where: str) -> Clip:
    path, label, split = (row[name] for name in COLUMNS)
    if not path or not label:
        raise DatasetError(f"{where}: path and label must not be empty")
    for known in SPLITS:
        if split == known:
            return Clip(path, base / path, label, known)
    raise DatasetError(f"{where}: unknown split {split!r}; choose one of {', '.join(SPLITS)}")


def load_demo(where: Where) -> Dataset:
    """Render the clips that are missing, and list all."""
    videos = where.videos or where.data / "demo" / "videos"
    render_demo(videos)
    clips = (Clip(clip.id, videos / clip.path, clip.name, clip.split) for clip in demo_clips())
    return Dataset(name="demo", classes=tuple(CLASSES), clips=tuple(clips))
