"""The user's own clips, in folders or a table, and the built-in demo."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from avcil.cache.schema import SPLITS, Split
from avcil.extract.datasets.base import Clip, Dataset, Where, refuse_shared_files
from avcil.extract.datasets.files import SUFFIXES, files_below, folders_in, is_clip
from avcil.extract.datasets.names import looks_like_a_split, name_similar, one_spelling, split_of
from avcil.extract.datasets.text import read_rows
from avcil.extract.demo import CLASSES, demo_clips, render_demo
from avcil.extract.errors import DatasetError
from avcil.runtime.progress import log

COLUMNS = ("path", "label", "split")


def load_folder(where: Where) -> Dataset:
    """DIR/<split>/<class>/* or DIR/<class>/*.

    Without split folders, a hash of the file names chooses the splits. Files that are not clips,
    and clips outside the class folders, are counted in a message.

    Raises:
        DatasetError: there is no such folder, or no clip in it, or its layout is unclear.
    """
    root = where.videos
    if root is None or not root.is_dir():
        raise DatasetError(
            f"no folder of clips at {root}: give one with --videos, laid out as "
            "DIR/<split>/<class>/* or DIR/<class>/*"
        )
    clips = _with_splits(root, where.split_names) or _without_splits(root)
    taken = {clip.path for clip in clips}
    others = (path.relative_to(root) for path in files_below(root) if path not in taken)
    left_out = _left_out(others, where.split_names)
    if not clips:
        raise DatasetError(
            f"{root} has no clips: expected DIR/<split>/<class>/* (splits {', '.join(SPLITS)}) or "
            f"DIR/<class>/*, ending in one of {', '.join(sorted(SUFFIXES))}"
            + (f"; it has files {left_out}" if left_out else "")
        )
    if left_out:
        log(f"files left out of {root}: {left_out}")
    return _dataset(root.resolve().name, clips, root)


def load_csv(where: Where) -> Dataset:
    """A table with the columns path,label,split.

    The delimiter may be a comma, a semicolon or a tab. Relative paths start at --videos, or at the
    folder of the table.

    Raises:
        DatasetError: there is no such table, or one of its rows is wrong.
    """
    if where.splits is None or not where.splits.is_file():
        raise DatasetError(
            f"no table at {where.splits}: give a csv file with the columns "
            f"{','.join(COLUMNS)} with --splits"
        )
    rows = read_rows(where.splits, lambda row: {*COLUMNS} <= {name.casefold() for name in row})
    _, heading = next(rows, (0, []))
    names = [name.casefold() for name in heading]
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise DatasetError(
            f"{where.splits} has no column {', '.join(missing)}: its first line is "
            f"{','.join(heading)!r}"
        )
    clips = []
    for number, row in rows:
        place = f"{where.splits}:{number}"
        if len(row) > len(names) and any(row[len(names) :]):
            raise DatasetError(
                f"{place}: {len(row)} fields, but the heading has {len(names)}: put a field with "
                f"commas in quotation marks: {','.join(row)!r}"
            )
        fields = dict(zip(names, [*row, *[""] * len(names)], strict=False))
        clips.append(_clip(fields, where.videos or where.splits.parent, where.split_names, place))
    return _dataset(where.splits.stem, clips, where.splits)


def _clip(fields: Mapping[str, str], base: Path, names: Mapping[str, Split], place: str) -> Clip:
    path, label, split = (fields[name] for name in COLUMNS)
    if not path or not label:
        raise DatasetError(f"{place}: path and label must not be empty")
    known = split_of(split, names)
    if known is None:
        raise DatasetError(
            f"{place}: unknown split {split!r}; choose one of {', '.join(SPLITS)}, or say what it "
            f"means with --split-names, such as test={split or 'NAME'}"
        )
    return Clip(path, _located(base, path), label, known)


def _located(base: Path, name: str) -> Path:
    """Return the file that a table names, even if its name on disk has another Unicode form."""
    spellings = [name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))]
    for spelling in (*spellings, name.replace("\\", "/")):
        if os.path.lexists(base / spelling):
            return base / spelling
    return base / name


def _dataset(name: str, clips: Iterable[Clip], source: Path = Path()) -> Dataset:
    spelling = one_spelling((clip.label for clip in clips), source)
    clips = tuple(replace(clip, label=spelling[clip.label]) for clip in clips)
    classes = tuple(sorted({clip.label for clip in clips}))
    name_similar(classes, source)
    dataset = Dataset(name=re.sub(r"[^\w.-]+", "-", name), classes=classes, clips=clips)
    refuse_shared_files(name, clips, _real_files(clips))
    return dataset


def _real_files(clips: Iterable[Clip]) -> list[Path]:
    """Return one path for all names of a file: links and parts such as `./` are resolved."""
    real_folder = cache(lambda folder: Path(os.path.realpath(folder)))  # reads each only once
    hard_links: dict[tuple[int, int], Path] = {}

    def real(path: Path) -> Path:
        file = real_folder(path.parent) / path.name
        if file.is_symlink():
            file = Path(os.path.realpath(file))
        if not file.exists() or (status := file.stat()).st_nlink == 1:
            return file
        return hard_links.setdefault((status.st_dev, status.st_ino), file)

    return [real(clip.path) for clip in clips]


def _with_splits(root: Path, names: Mapping[str, Split]) -> list[Clip]:
    tops = [(split_of(top.name, names), top) for top in folders_in(root)]
    return [
        Clip(path.relative_to(root).as_posix(), path, folder.name, split)
        for wanted in SPLITS
        for split, top in tops
        if split == wanted
        for folder in folders_in(top)
        for path in _clips_below(folder)
    ]


def _without_splits(root: Path) -> list[Clip]:
    clips: list[Clip] = []
    for folder in folders_in(root):
        paths = _clips_below(folder)
        _refuse_splits(folder, paths)
        clips += [
            Clip(path.relative_to(root).as_posix(), path, folder.name, split)
            for path, split in _split(paths)
        ]
    labels = sorted({clip.label for clip in clips})
    if labels and all(split_of(label, {}) for label in labels):
        raise DatasetError(
            f"the splits {', '.join(labels)} in {root} have no folders of classes: expected "
            "DIR/<split>/<class>/*"
        )
    return clips


def _clips_below(folder: Path) -> list[Path]:
    return [path for path in files_below(folder) if is_clip(path)]


def _refuse_splits(folder: Path, paths: Iterable[Path]) -> None:
    """Refuse folders that are probably splits, before they become classes."""
    inner = {path.relative_to(folder).parts[0] for path in paths if path.parent != folder}
    if inner and looks_like_a_split(folder.name):
        raise DatasetError(
            f"{folder} looks like a split: if it is, say which with --split-names, such as "
            f"test={folder.name}; if it is a class, give it another name"
        )
    splits = sorted(name for name in inner if split_of(name, {}))
    if splits:
        raise DatasetError(
            f"{folder / splits[0]} looks like a split in a class: expected DIR/<split>/<class>/*; "
            f"if {folder} holds all clips, give it with --videos"
        )


def _split(paths: list[Path]) -> Iterator[tuple[Path, Split]]:
    """Split a class: a tenth each for validation and test, at least one clip.

    A hash of the names chooses, since their order may have a meaning (one camera, one day).
    """
    share = max(1, round(len(paths) / 10)) if len(paths) >= 3 else 0
    ordered = sorted(paths, key=lambda path: hashlib.sha256(os.fsencode(path.name)).digest())
    for number, path in enumerate(ordered):
        yield path, "val" if number < share else "test" if number < 2 * share else "train"


def _left_out(paths: Iterable[Path], names: Mapping[str, Split]) -> str:
    """Count the files that are not clips of a class, by reason, with an example of each."""
    reasons: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        if path.suffix.lower() not in SUFFIXES:
            if not path.name.startswith("."):  # .DS_Store and the like need no message
                reasons[f"ending in {path.suffix or 'nothing'!r}"].append(path)
        elif path.name.startswith("."):
            reasons["hidden"].append(path)
        elif len(path.parts) == 1 or split_of(path.parts[0], names):
            reasons["not in a class folder"].append(path)
        else:
            reasons[f"in {path.parts[0]!r}, which is not a split (see --split-names)"].append(path)
    ordered = sorted(reasons.items(), key=lambda item: -len(item[1]))
    shown = [f"{len(found)} {why} ({str(found[0])!r})" for why, found in ordered[:8]]
    return "; ".join(shown) + (" ..." if len(ordered) > 8 else "")


def load_demo(where: Where) -> Dataset:
    """Render the missing clips, and list all clips."""
    videos = where.videos or where.data / "demo" / "videos"
    render_demo(videos)
    clips = (Clip(clip.id, videos / clip.path, clip.name, clip.split) for clip in demo_clips())
    return Dataset(name="demo", classes=tuple(CLASSES), clips=tuple(clips))
