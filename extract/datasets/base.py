"""What a data set is to extraction: a list of clips, each with a file, a class and a split."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from avcil.cache.schema import Manifest, Split
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
    """The folder that has a folder of each data set."""
    videos: Path | None = None
    """The clips, if elsewhere."""
    splits: Path | None = None
    """The lists of clips, if elsewhere."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """Named clips of named classes; ids are unique."""

    name: str
    classes: tuple[str, ...]
    clips: tuple[Clip, ...]

    def __post_init__(self) -> None:
        """Refuse clips that could not be told apart, or could not be written down."""
        if not self.clips:
            raise DatasetError(f"data set {self.name!r} has no clips")
        _refuse_repeated(self.name, self.clips)
        for text in (*self.classes, *(clip.id for clip in self.clips)):
            if not text.isprintable():
                raise DatasetError(f"{text!r} of data set {self.name!r} is no printable name")

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
