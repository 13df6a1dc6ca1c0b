"""Data sets as lists of clips, each with a file, a class and a split."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from avcil.cache.schema import SPLITS, Manifest, Split
from avcil.extract.errors import DatasetError


@dataclass(frozen=True, slots=True)
class Clip:
    """One row of a data set."""

    id: str
    path: Path
    label: str
    split: Split


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """Where to look for a data set's files."""

    data: Path
    """The folder with one folder per data set."""
    videos: Path | None = None
    """The folder of clips, if elsewhere."""
    splits: Path | None = None
    """The folder of the lists of clips, if elsewhere."""
    split_names: Mapping[str, Split] = field(default_factory=dict)
    """The user's own names of splits, in lower case."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """Named clips of named classes; ids are unique."""

    name: str
    classes: tuple[str, ...]
    clips: tuple[Clip, ...]

    def __post_init__(self) -> None:
        """Check that ids are unique, and that all names can be printed."""
        if not self.clips:
            raise DatasetError(f"data set {self.name!r} has no clips")
        _refuse_repeated(self.name, self.clips)
        for clip in self.clips:
            if clip.label not in self.classes or clip.split not in SPLITS:
                raise DatasetError(
                    f"clip {clip.id!r} of data set {self.name!r} has the class {clip.label!r} and "
                    f"the split {clip.split!r}: the classes are {', '.join(self.classes[:20])}, "
                    f"and splits are {', '.join(SPLITS)}"
                )
        for text in (*self.classes, *(clip.id for clip in self.clips)):
            if not text.strip() or not text.isprintable():
                raise DatasetError(
                    f"{text!r} of data set {self.name!r} is not a printable name: rename it"
                )

    def manifest(self) -> Manifest:
        """Return the rows of the cache."""
        label = {name: number for number, name in enumerate(self.classes)}
        rows = [(clip.split, label[clip.label], clip.id) for clip in self.clips]
        return Manifest.of(self.name, self.classes, rows)

    def paths(self, ids: Sequence[str]) -> list[Path]:
        """Return the files of clips."""
        path = {clip.id: clip.path for clip in self.clips}
        return [path[clip] for clip in ids]


def _refuse_repeated(name: str, clips: Sequence[Clip]) -> None:
    twice = [clip for clip, count in Counter(clip.id for clip in clips).items() if count > 1]
    if not twice:
        return
    places = defaultdict(list)
    for clip in clips:
        places[clip.id].append(f"{clip.split}/{clip.label}")
    shown = "; ".join(f"{clip!r} in {', '.join(places[clip])}" for clip in twice[:5])
    raise DatasetError(
        f"{len(twice)} clips of data set {name!r} are listed more than once: {shown}"
        f"{' ...' if len(twice) > 5 else ''}; keep each in one split and one class"
    )


def refuse_shared_files(name: str, clips: Sequence[Clip], files: Sequence[Path]) -> None:
    """Check that no file is listed as several clips, which would leak between splits.

    Args:
        name: name of the data set.
        clips: its clips.
        files: the file of each clip.
    """
    ids = defaultdict(list)
    for clip, file in zip(clips, files, strict=True):
        ids[file].append(clip)
    twice = [(file, found) for file, found in ids.items() if len(found) > 1]
    if not twice:
        return
    shown = "; ".join(
        f"{file} is {', '.join(f'{clip.id!r} in {clip.split}/{clip.label}' for clip in found[:5])}"
        for file, found in twice[:5]
    )
    raise DatasetError(
        f"{len(twice)} files of data set {name!r} are several clips each: {shown}"
        f"{' ...' if len(twice) > 5 else ''}; keep one of each"
    )
