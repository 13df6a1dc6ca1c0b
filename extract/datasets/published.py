"""Published benchmarks, from their authors' lists and the file names on their cards."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from avcil.benchmarks.cards import Card
from avcil.extract.datasets.base import Clip, Dataset, Where, refuse_shared_files
from avcil.extract.datasets.files import files_below, is_clip
from avcil.extract.datasets.lists import READERS, Lists
from avcil.extract.datasets.names import name_similar
from avcil.extract.errors import DatasetError
from avcil.runtime.progress import log

Key = tuple[str, tuple[int, ...]]  # the video, and the seconds in a file's name
SHORTEST_VIDEO_NAME = 8
"""Shorter names of videos occur in other names by chance."""


def load_published(card: Card, where: Where) -> Dataset:
    """List the clips of a benchmark; clips without a file fail when they are extracted.

    Raises:
        DatasetError: there are no lists or no folder of clips.
    """
    if where.split_names:
        raise DatasetError(
            f"--split-names is for your own clips: {card.name!r} has published splits"
        )
    splits = where.splits or where.data / card.name / "splits"
    videos = where.videos or where.data / card.name / "videos"
    classes, listed = _lists(card, splits)
    if not videos.is_dir():
        raise DatasetError(
            f"no clips of {card.name!r} at {videos}: get them from {card.videos_origin}, "
            "or say where they are with --videos"
        )
    files = _Files(videos, card)
    clips = tuple(
        Clip(clip, files.of(clip) or videos / f"{clip}.mp4", label, split)
        for split, clip, label in listed
    )
    dataset = Dataset(name=card.name, classes=classes, clips=clips)
    refuse_shared_files(card.name, clips, [clip.path for clip in clips])
    name_similar(classes, splits)
    files.hint(clips)
    return dataset


def _lists(card: Card, splits: Path) -> Lists:
    for known in card.lists:
        files = [splits / name for name in known.files]
        if all(file.is_file() for file in files):
            return READERS[known.form](files)
    expected = "; or ".join(
        f"{', '.join(known.files)} from {known.origin} (class order {known.class_order})"
        for known in card.lists
    )
    some = [name for known in card.lists for name in known.files if (splits / name).is_file()]
    found = f", found only {', '.join(some)}" if some else ""
    raise DatasetError(
        f"no lists of {card.name!r} at {splits}{found}: expected {expected}; "
        "or say where they are with --splits"
    )


def file_key(card: Card, stem: str) -> Key | None:
    """Return the video and the seconds in a clip's name, or None if it has another form.

    Args:
        card: the benchmark, with the forms of its file names.
        stem: name of a file without its suffix, or an id.
    """
    for template in card.file_names:
        match = _pattern(template, card.video).fullmatch(stem)
        if match is not None:
            video, *times = match.groups()
            return video, tuple(int(time) for time in times)
    return None


@cache
def _pattern(template: str, video: str) -> re.Pattern[str]:
    """Turn `<video>_<start>` into a regular expression; times have any number of digits."""
    parts = re.split(r"<(\w+)>", template)
    named = [f"({video or '.+'})" if name == "video" else r"(\d+)" for name in parts[1::2]]
    texts = zip(parts[::2], [*named, ""], strict=True)
    return re.compile("".join(re.escape(text) + name for text, name in texts))


class _Files:
    """The files below a folder, found by the names of clips in the lists."""

    def __init__(self, videos: Path, card: Card) -> None:
        self._card = card
        self._by_name: dict[str, Path] = {}
        for path in filter(is_clip, files_below(videos)):
            known = self._by_name.get(path.stem)
            # The same name again is a copy; empty files are left by interrupted downloads.
            if known is None or (_is_empty(known) and not _is_empty(path)):
                self._by_name[path.stem] = path
        self._by_key: dict[Key, list[Path]] = defaultdict(list)
        self._by_video: dict[str, list[Path]] = defaultdict(list)
        for stem, path in self._by_name.items():
            key = file_key(card, stem)
            if key is not None:
                self._by_key[key].append(path)
                self._by_video[key[0]].append(path)

    def of(self, clip: str) -> Path | None:
        """Return a clip's file if there is one.

        A file with exactly this name is preferred. Otherwise the video must be the same, and the
        seconds too, unless the list or the file name has none (as for Kinetics clips).

        Raises:
            DatasetError: several files match.
        """
        if clip in self._by_name:
            return self._by_name[clip]
        key = file_key(self._card, clip)
        if key is None:
            return None
        video, times = key
        paths = self._by_key.get(key) or self._by_key.get((video, ()), [])
        if not times:
            paths = self._by_video.get(video, [])
        if len(paths) > 1:
            names = ", ".join(str(path) for path in paths[:5])
            raise DatasetError(f"several files could be clip {clip!r}: {names}; keep one of them")
        return paths[0] if paths else None

    def hint(self, clips: Sequence[Clip]) -> None:
        """Log how many missing clips seem to exist under another name."""
        used = {clip.path for clip in clips}
        missing = {
            key[0]: (clip.id, key[1])
            for clip in clips
            if clip.path.stem not in self._by_name
            for key in [file_key(self._card, clip.id) or (clip.id, ())]
        }
        lengths = {len(video) for video in missing if len(video) >= SHORTEST_VIDEO_NAME}
        found: dict[str, Path] = {}
        for stem, path in self._by_name.items():
            if path in used:
                continue
            key = file_key(self._card, stem)
            for video in _parts(stem, lengths):
                # A file with other seconds is another part of the same video.
                if video in missing and (key is None or _milliseconds(key[1], missing[video][1])):
                    found.setdefault(video, path)
        if found:
            video, path = next(iter(found.items()))
            log(
                f"{len(found)} clips of {self._card.name!r} have no file, but other files contain "
                f"their video's name: {path.name} could be {missing[video][0]}; if so, rename them "
                f"to {' or '.join(self._card.file_names)}, times in seconds"
            )


def _parts(text: str, lengths: Iterable[int]) -> Iterable[str]:
    return (text[i : i + n] for n in lengths for i in range(len(text) - n + 1))


def _milliseconds(times: Sequence[int], seconds: Sequence[int]) -> bool:
    return bool(seconds) and list(times) == [1000 * each for each in seconds]


def _is_empty(path: Path) -> bool:
    """Return whether a file is empty, or a link to a missing file."""
    return not path.exists() or path.stat().st_size == 0
