"""Readers of published lists of clips: the classes in order, and split, id and class of all clips.

The forms are AV-CIL's dictionaries, with the class order of its tables; AVE's text files; and
VGGSound's table. The card of a benchmark names its reader and its files.

Source: Pian et al., Audio-Visual Class-Incremental Learning, ICCV 2023; Tian et al., Audio-Visual
Event Localization, ECCV 2018; Chen et al., VGGSound, ICASSP 2020.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from avcil.cache.convert.safe_pickle import read_dictionary
from avcil.cache.schema import SPLITS, Split
from avcil.extract.datasets.names import fold, one_spelling, split_of
from avcil.extract.datasets.text import read_rows, read_text
from avcil.extract.errors import DatasetError
from avcil.runtime.progress import log

VALIDATION_CLIPS = 50
"""Validation clips per class if a table has none: as many as in AV-CIL's lists."""

Listed = list[tuple[Split, str, str]]  # split, id, class name
Lists = tuple[tuple[str, ...], Listed]


def dictionaries(files: Sequence[Path]) -> Lists:
    """Read AV-CIL's dictionaries: classes in learning order, and every clip's split and class."""
    classes_file, clips_file = files
    numbers = read_dictionary(classes_file)
    classes = tuple(sorted(numbers, key=lambda name: int(numbers[name])))
    if sorted(int(number) for number in numbers.values()) != list(range(len(classes))):
        raise DatasetError(f"{classes_file} does not number its classes 0, 1, 2, ...")
    content = read_dictionary(clips_file)
    missing = [split for split in SPLITS if split not in content]
    if missing:
        raise DatasetError(f"{clips_file} has no split {', '.join(missing)}")
    listed: Listed = [
        (split, str(clip), str(label)) for split in SPLITS for clip, label in content[split].items()
    ]
    strange = {label for _, _, label in listed} - set(classes)
    if strange:
        raise DatasetError(f"{clips_file} has unknown classes, for example {min(strange)!r}")
    return classes, listed


def official_ave(files: Sequence[Path]) -> Lists:
    """Read AVE's own lists, lines of class&id&quality&start&end; classes in alphabetical order.

    A line is an event, and a clip may have several. Only its first line counts, in the order of
    training, validation, test, so that no training clip is also a test clip.
    """
    rows = [(split, *row) for split, path in zip(SPLITS, files, strict=True) for row in _ave(path)]
    spelling = one_spelling((label for _, _, label in rows), files[0].parent)
    clips: dict[str, tuple[Split, str]] = {}
    others: list[str] = []
    for split, clip, label in rows:
        event = (split, spelling[label])
        if clips.setdefault(clip, event) != event:
            others.append(f"{clip} ({split}, {label})")
    if others:
        log(
            f"{len(others)} lines of {files[0].parent} name a clip that an earlier line gives "
            f"another class or split, and are left out: {', '.join(others[:5])}"
            f"{' ...' if others[5:] else ''}"
        )
    listed = [(split, clip, label) for clip, (split, label) in clips.items()]
    return tuple(sorted({label for _, _, label in listed})), listed


def _ave(path: Path) -> Iterator[tuple[str, str]]:
    """Yield id and class of each line except the heading."""
    first = True
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        fields = [field.strip() for field in line.split("&")]
        if not line.strip():
            continue
        if len(fields) != 5:
            raise DatasetError(
                f"{path}:{number}: expected class&id&quality&start&end, not {line!r}"
            )
        is_heading = first and not (_is_number(fields[3]) or _is_number(fields[4]))
        first = False
        if not is_heading:
            yield fields[1], fields[0]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def vggsound(files: Sequence[Path]) -> Lists:
    """Read VGGSound's table (YouTube id, start, label, split) for the classes of a list.

    The table has training and test clips only. If it has no validation clips, a tenth of each
    class's training clips are used, at most as many as in AV-CIL's lists.
    """
    table, classes_file = files
    rows = list(_vggsound_rows(table))
    names = _class_list(classes_file)
    spelling = one_spelling([*names, *(label for _, _, label in rows)], table)
    classes = tuple(dict.fromkeys(spelling[name] for name in names))
    listed = [
        (split, clip, spelling[label])
        for split, clip, label in rows
        if spelling[label] in set(classes)
    ]
    _refuse_absent(classes, {label for _, _, label in rows}, {x for _, _, x in listed}, files)
    if all(split != "val" for split, _, _ in listed):
        listed = _with_validation(listed, table)
    return classes, listed


def _refuse_absent(
    classes: Sequence[str], known: set[str], found: set[str], files: Sequence[Path]
) -> None:
    similar = {fold(name): name for name in known}
    absent = [
        f"{name!r} (it has {similar[fold(name)]!r})" if fold(name) in similar else repr(name)
        for name in classes
        if name not in found
    ]
    if absent:
        shown = ", ".join(absent[:5]) + (" ..." if len(absent) > 5 else "")
        raise DatasetError(
            f"{files[1]} names {len(absent)} classes that {files[0]} does not have: {shown}; spell "
            "them as in the table"
        )


def _class_list(path: Path) -> tuple[str, ...]:
    """Read one class per line, in learning order; lines may be quoted as in a table."""
    lines = (line.strip() for line in read_text(path).splitlines())
    classes = tuple(
        line[1:-1].replace('""', '"') if len(line) > 1 and line[0] == line[-1] == '"' else line
        for line in lines
        if line
    )
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice or not classes:
        found = f"{twice[0]!r} more than once" if twice else "nothing"
        raise DatasetError(f"{path} names {found}: expected every class once, one per line")
    return classes


def _vggsound_rows(path: Path) -> Iterator[tuple[Split, str, str]]:
    """Yield split, id and class of each row except the heading and comments."""
    for position, (number, row) in enumerate(read_rows(path, lambda row: len(row) == 4)):
        split = split_of(row[3], {}) if len(row) == 4 else None
        starts_with_mark = row[0].startswith(
            "#"
        )  # also `#NAME?`, which Excel writes for an id like -abc
        if split and row[1].isdecimal() and not starts_with_mark:
            yield split, f"{row[0]}_{int(row[1]):06d}", row[2]
            continue
        is_heading = position == 0 and not any(field.isdecimal() for field in row)
        if split or not (starts_with_mark or is_heading):
            raise DatasetError(
                f"{path}:{number}: expected YouTube id, start in whole seconds, label and split "
                f"({', '.join(SPLITS)}), not {','.join(row)!r}"
            )


def _with_validation(listed: Listed, table: Path) -> Listed:
    """Turn some training clips of each class into validation clips, chosen by name.

    Clips are ordered by a hash of their video, so that the clips of at most one video per class
    are divided between training and validation.
    """
    training: dict[str, list[tuple[bytes, str]]] = defaultdict(list)
    for split, clip, label in listed:
        if split == "train":
            video, _, _ = clip.rpartition("_")
            training[label].append((hashlib.sha256(video.encode()).digest(), clip))
    chosen = {
        clip
        for clips in training.values()
        for _, clip in sorted(clips)[: min(VALIDATION_CLIPS, len(clips) // 10)]
    }
    log(
        f"{table.name} has no validation clips: {len(chosen)} training clips, chosen by name, "
        "are used instead (AV-CIL's own choice is in its dictionaries)"
    )
    return [
        ("val" if split == "train" and clip in chosen else split, clip, label)
        for split, clip, label in listed
    ]


READERS: Mapping[str, Callable[[Sequence[Path]], Lists]] = {
    "dictionaries": dictionaries,
    "ave": official_ave,
    "vggsound": vggsound,
}
"""Readers by the form that a card names; each takes the files that the card names."""
