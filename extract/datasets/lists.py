"""Published lists of clips: each reader gives the classes in order, and split, id and class of all.

AV-CIL's dictionaries, whose class order is the learning order of its tables; the text files of
AVE; the table of VGGSound.

Source: Pian et al., Audio-Visual Class-Incremental Learning, ICCV 2023; Tian et al., Audio-Visual
Event Localization, ECCV 2018; Chen et al., VGGSound, ICASSP 2020.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from avcil.cache.convert.safe_pickle import read_dictionary
from avcil.cache.schema import SPLITS, Split
from avcil.extract.errors import DatasetError
from avcil.runtime.progress import log

CLASSES_FILE = "category_encode_dict.npy"
CLIPS_FILE = "all_id_category_dict.npy"
AVE_FILES: dict[Split, str] = {
    "train": "trainSet.txt", "val": "valSet.txt", "test": "testSet.txt",
}  # fmt: skip
VGGSOUND_FILE = "vggsound.csv"
VGGSOUND_CLASSES_FILE = "classes.txt"
VALIDATION_CLIPS = 50
"""Validation clips a class where a table has none: as many as AV-CIL's lists have."""

Listed = list[tuple[Split, str, str]]  # split, id, class name
Lists = tuple[tuple[str, ...], Listed]


def dictionaries(splits: Path) -> Lists:
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


def official_ave(splits: Path) -> Lists:
    """Read AVE's own lists, lines of class&id&quality&start&end; classes by the alphabet.

    A line is an event, and a clip may have several: its first line counts, in the order of
    training, validation, test, so that no clip is both learnt and tested.
    """
    clips: dict[str, tuple[Split, str]] = {}
    others: list[str] = []
    for split, file in AVE_FILES.items():
        for number, line in enumerate((splits / file).read_text("utf-8").splitlines(), start=1):
            fields = line.split("&")
            if not line.strip():
                continue
            if len(fields) != 5:
                raise DatasetError(
                    f"{splits / file}:{number}: expected class&id&quality&start&end, not {line!r}"
                )
            if clips.setdefault(fields[1], (split, fields[0])) != (split, fields[0]):
                others.append(f"{fields[1]} ({split}, {fields[0]})")
    if others:
        log(
            f"{len(others)} lines of {splits} name a clip that an earlier line gives another class "
            f"or split, and are left out: {', '.join(others[:5])}{' ...' if others[5:] else ''}"
        )
    listed = [(split, clip, label) for clip, (split, label) in clips.items()]
    return tuple(sorted({label for _, _, label in listed})), listed


def vggsound(splits: Path) -> Lists:
    """Read VGGSound's table (YouTube id, start, label, split) for the classes of a list.

    The table has training and test clips only. Where it has no validation clips, some of each
    class's training clips become those: a tenth, at most as many as AV-CIL's lists have.
    """
    path = splits / VGGSOUND_FILE
    classes = _class_list(splits / VGGSOUND_CLASSES_FILE)
    known = set(classes)
    listed = [row for row in _vggsound_rows(path) if row[2] in known]
    absent = [name for name in classes if name not in {label for _, _, label in listed}]
    if absent:
        shown = ", ".join(map(repr, absent[:5])) + (" ..." if len(absent) > 5 else "")
        raise DatasetError(
            f"{splits / VGGSOUND_CLASSES_FILE} names {len(absent)} classes that {path} does not "
            f"have: {shown}; write them as the table does"
        )
    if all(split != "val" for split, _, _ in listed):
        listed = _with_validation(listed)
    return classes, listed


def _class_list(path: Path) -> tuple[str, ...]:
    """Read one class a line, in learning order."""
    lines = (line.strip() for line in path.read_text("utf-8-sig").splitlines())
    classes = tuple(line for line in lines if line)
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice or not classes:
        found = f"{twice[0]!r} more than once" if twice else "nothing"
        raise DatasetError(f"{path} names {found}: expected every class once, one a line")
    return classes


def _vggsound_rows(path: Path) -> Iterator[tuple[Split, str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        for row in reader:
            if not row or row[0].startswith("#"):  # some copies have a first line of names
                continue
            if len(row) != 4 or not row[1].strip().isdecimal() or row[3].strip() not in SPLITS:
                raise DatasetError(
                    f"{path}:{reader.line_num}: expected YouTube id, start in whole seconds, "
                    f"label and split ({', '.join(SPLITS)}), not {','.join(row)!r}"
                )
            video, start, label, split = (field.strip() for field in row)
            known = next(name for name in SPLITS if name == split)
            yield known, f"{video}_{int(start):06d}", label


def _with_validation(listed: Listed) -> Listed:
    """Turn some training clips of each class into validation clips, chosen by name.

    Clips are ordered by a hash of their video, so that those of one video stay together: at most
    one video of a class has clips on both sides.
    """
    training: dict[str, list[str]] = defaultdict(list)
    for split, clip, label in listed:
        if split == "train":
            training[label].append(clip)
    chosen = set()
    for clips in training.values():
        clips.sort(key=lambda clip: (hashlib.sha256(clip[:11].encode()).digest(), clip))
        chosen.update(clips[: min(VALIDATION_CLIPS, len(clips) // 10)])
    log(
        f"{VGGSOUND_FILE} has no validation clips: {len(chosen)} training clips, chosen by name, "
        "are taken for it (AV-CIL's own choice is in its dictionaries)"
    )
    return [
        ("val" if split == "train" and clip in chosen else split, clip, label)
        for split, clip, label in listed
    ]


@dataclass(frozen=True, slots=True)
class Format:
    """One way in which a benchmark's lists are published."""

    files: tuple[str, ...]
    read: Callable[[Path], Lists]

    def is_in(self, splits: Path) -> bool:
        """Tell whether a folder has all the files."""
        return all((splits / name).is_file() for name in self.files)


DICTIONARIES = Format((CLASSES_FILE, CLIPS_FILE), dictionaries)
OFFICIAL_AVE = Format(tuple(AVE_FILES.values()), official_ave)
VGGSOUND = Format((VGGSOUND_FILE, VGGSOUND_CLASSES_FILE), vggsound)
