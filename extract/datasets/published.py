"""The published benchmarks: AVE, Kinetics-Sounds and VGGSound-100, by their authors' lists."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from avcil.extract.datasets.base import Clip, Dataset, Where
from avcil.extract.datasets.lists import (
    DICTIONARIES,
    OFFICIAL_AVE,
    VGGSOUND,
    Format,
    Lists,
)
from avcil.extract.datasets.own import SUFFIXES
from avcil.extract.errors import DatasetError


@dataclass(frozen=True, slots=True)
class Release:
    """What a benchmark's files are called and where they are to be had."""

    name: str
    clip_id: Callable[[str], str]
    """From a file's name without its suffix to the id in the lists."""
    videos_from: str
    formats: tuple[Format, ...] = (DICTIONARIES,)
    """How its lists may come; the first that is there is read."""
    lists_from: str = "https://github.com/weiguoPian/AV-CIL_ICCV2023"

    def load(self, where: Where) -> Dataset:
        """List the clips; one whose file is not there fails when it is extracted.

        Raises:
            DatasetError: there are no lists or no folder of clips; says where to get them.
        """
        splits = where.splits or where.data / self.name / "splits"
        videos = where.videos or where.data / self.name / "videos"
        classes, listed = self._lists(splits)
        if not videos.is_dir():
            raise DatasetError(
                f"no clips of {self.name!r} at {videos}: get them from {self.videos_from}, "
                "or say where they are with --videos"
            )
        files = _Files(videos, self.clip_id)
        clips = tuple(
            Clip(clip, files.of(clip) or videos / f"{clip}.mp4", label, split)
            for split, clip, label in listed
        )
        return Dataset(name=self.name, classes=classes, clips=clips)

    def _lists(self, splits: Path) -> Lists:
        for known in self.formats:
            if known.is_in(splits):
                return known.read(splits)
        expected = "; or ".join(", ".join(known.files) for known in self.formats)
        raise DatasetError(
            f"no lists of {self.name!r} at {splits}: expected {expected}; get them from "
            f"{self.lists_from}, or say where they are with --splits"
        )


class _Files:
    """The files below a folder, found by what the lists call their clips."""

    def __init__(self, videos: Path, clip_id: Callable[[str], str]) -> None:
        self._clip_id = clip_id
        self._by_name: dict[str, Path] = {}
        self._by_id: dict[str, list[Path]] = defaultdict(list)
        for path in _files(videos):
            if path.stem not in self._by_name:  # a copy in another folder is no other clip
                self._by_name[path.stem] = path
                self._by_id[clip_id(path.stem)].append(path)

    def of(self, clip: str) -> Path | None:
        """Return a clip's file if there is one.

        A file of the very name comes first. The name in a list may say more than the file's (the
        seconds of a Kinetics clip) or less, but never something else.

        Raises:
            DatasetError: several files could be meant.
        """
        if clip in self._by_name:
            return self._by_name[clip]
        if self._clip_id(clip) != clip:
            return self._by_name.get(self._clip_id(clip))
        paths = self._by_id.get(clip, [])
        if len(paths) > 1:
            names = ", ".join(str(path) for path in paths[:5])
            raise DatasetError(f"several files could be clip {clip!r}: {names}; keep one of them")
        return paths[0] if paths else None


def kinetics_id(stem: str) -> str:
    """Return the YouTube id of `<id>_<start>_<end>` or `<id>`."""
    return re.sub(r"_\d{6}_\d{6}$", "", stem)


def vggsound_id(stem: str) -> str:
    """Return `<YouTube id>_<start, 6 digits>`, whether the start is padded or not."""
    return re.sub(r"^(.{11})_(\d+)$", lambda match: f"{match[1]}_{int(match[2]):06d}", stem)


def _files(videos: Path) -> list[Path]:
    """Return the clips in a folder and the folders in it, in a fixed order."""
    return sorted(path for path in videos.rglob("*") if path.suffix.lower() in SUFFIXES)


AVE = Release(
    name="ave",
    clip_id=str,
    videos_from="https://github.com/YapengTian/AVE-ECCV18",
    formats=(DICTIONARIES, OFFICIAL_AVE),
)
KINETICS_SOUNDS = Release(
    name="ks",
    clip_id=kinetics_id,
    videos_from="https://github.com/cvdfoundation/kinetics-dataset",
)
VGGSOUND_100 = Release(
    name="vs100",
    clip_id=vggsound_id,
    videos_from="https://www.robots.ox.ac.uk/~vgg/data/vggsound/",
    formats=(DICTIONARIES, VGGSOUND),
)
