"""The published benchmarks: AVE, Kinetics-Sounds and VGGSound-100, by their authors' lists.

The lists are read as they are published: AV-CIL's dictionaries, whose class order is the learning
order of its tables, or the official text files of AVE.

Source: Pian et al., Audio-Visual Class-Incremental Learning, ICCV 2023; Tian et al., Audio-Visual
Event Localization, ECCV 2018.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from avcil.cache.dictionaries import read_dictionary
from avcil.cache.schema import SPLITS, Split
from avcil.extract.datasets.base import Clip, Dataset, Where
from avcil.extract.datasets.own import SUFFIXES
from avcil.extract.errors import DatasetError

CLASSES_FILE = "category_encode_dict.npy"
CLIPS_FILE = "all_id_category_dict.npy"
OFFICIAL_AVE: dict[Split, str] = {
    "train": "trainSet.txt", "val": "valSet.txt", "test": "testSet.txt",
}  # fmt: skip

Listed = list[tuple[Split, str, str]]  # split, id, class name


@dataclass(frozen=True, slots=True)
class Release:
    """What a benchmark's files are called and where they are to be had."""

    name: str
    clip_id: Callable[[str], str]
    """From a file's name without its suffix to the id in the lists."""
    videos_from: str
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
        found = {self.clip_id(path.stem): path for path in _files(videos)}
        clips = tuple(
            Clip(clip, found.get(clip, videos / f"{clip}.mp4"), label, split)
            for split, clip, label in listed
        )
        return Dataset(name=self.name, classes=classes, clips=clips)

    def _lists(self, splits: Path) -> tuple[tuple[str, ...], Listed]:
        if (splits / CLASSES_FILE).is_file() and (splits / CLIPS_FILE).is_file():
            return dictionaries(splits)
        if self.name == "ave" and all((splits / file).is_file() for file in OFFICIAL_AVE.values()):
            return official_ave(splits)
        expected = f"{CLASSES_FILE} and {CLIPS_FILE}"
        if self.name == "ave":
            expected += f", or {', '.join(OFFICIAL_AVE.values())}"
        raise DatasetError(
            f"no lists of {self.name!r} at {splits}: expected {expected}; get them from "
            f"{self.lists_from}, or say where they are with --splits"
        )


def dictionaries(splits: Path) -> tuple[tuple[str, ...], Listed]:
    """Read AV-CIL's dictionaries: classes in learning order, and every clip's split and class."""
    numbers = read_dictionary(splits / CLASSES_FILE)
    classes = tuple(sorted(numbers, key=lambda name: int(numbers[name])))
    if sorted(int(number) for number in numbers.values()) != list(range(len(classes))):
        raise DatasetError(f"{splits / CLASSES_FILE} does not number its classes 0, 1, 2, ...")
    content = read_dictionary(splits / CLIPS_FILE)
    missing = [split for split in SPLITS if split not in content]
    if missing:
        raise DatasetError(f"{splits / CLIPS_FILE} has no split {', '.join(missing)}")
    listed: Listed = [
        (split, str(clip), str(label)) for split in SPLITS for clip, label in content[split].items()
    ]
    strange = {label for _, _, label in listed} - set(classes)
    if strange:
        raise DatasetError(
            f"{splits / CLIPS_FILE} has unknown classes, for example {min(strange)!r}"
        )
    return classes, listed


def official_ave(splits: Path) -> tuple[tuple[str, ...], Listed]:
    """Read AVE's own lists, lines of class&id&quality&start&end; classes by the alphabet."""
    listed: Listed = []
    for split, file in OFFICIAL_AVE.items():
        for number, line in enumerate((splits / file).read_text("utf-8").splitlines(), start=1):
            fields = line.split("&")
            if not line.strip():
                continue
            if len(fields) != 5:
                raise DatasetError(
                    f"{splits / file}:{number}: expected class&id&quality&start&end, not {line!r}"
                )
            listed.append((split, fields[1], fields[0]))
    return tuple(sorted({label for _, _, label in listed})), listed


def shared_sources(dataset: Dataset) -> list[str]:
    """Return the test clips whose video, by its YouTube id, a training clip was cut from as well.

    Of VGGSound-100 they are 1,627 of 5,000: a figure without them is the honest one.
    """
    seen = {source(clip.id) for clip in dataset.clips if clip.split == "train"}
    return [clip.id for clip in dataset.clips if clip.split == "test" and source(clip.id) in seen]


def source(clip_id: str) -> str:
    """Return the YouTube id, which is 11 characters, of a clip's id."""
    return clip_id[:11]


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
)
