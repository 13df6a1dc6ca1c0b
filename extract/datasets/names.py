"""Names of splits and classes, which people and programs write in several ways."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from avcil.cache.schema import SPLITS, Split
from avcil.extract.errors import DatasetError
from avcil.runtime.progress import log

SPLIT_NAMES: dict[str, Split] = {
    "train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
}  # fmt: skip
"""Names of splits that are read without being asked for, in any case."""
SPLIT_LIKE = {
    *SPLIT_NAMES, "training", "dev", "development", "eval", "evaluation", "testing", "holdout",
}  # fmt: skip


def split_names(text: str) -> dict[str, Split]:
    """Read `train=learn,test=exam`: names of one's own for splits.

    Raises:
        DatasetError: it is written in another way, or names an unknown split.
    """
    names: dict[str, Split] = {}
    for part in filter(None, text.split(",")):
        split, _, name = (each.strip() for each in part.partition("="))
        known = next((each for each in SPLITS if each == split), None)
        if known is None or not name:
            raise DatasetError(
                f"split names are given as train=NAME,val=NAME,test=NAME, not {text!r}"
            )
        names[name.casefold()] = known
    return names


def split_of(name: str, others: Mapping[str, Split]) -> Split | None:
    """Return the split that a name means, or None.

    Args:
        name: such as `Validation`.
        others: names of the user's own, which come first.
    """
    key = name.strip().casefold()
    return others.get(key) or SPLIT_NAMES.get(key)


def looks_like_a_split(name: str) -> bool:
    """Tell whether a name such as `train_set` or `Test2017` probably means a split."""
    return re.sub(r"[\W\d_]+|set$", "", name.casefold()) in SPLIT_LIKE


def one_spelling(names: Iterable[str], where: Path) -> dict[str, str]:
    """Map each class name to one spelling, and log what was merged.

    Names that differ only in the form of Unicode (one character or a letter and its accent) or in
    blanks at the ends are one class: nobody can tell them apart on a screen.
    """
    groups = _alike(names, lambda name: unicodedata.normalize("NFC", name).strip())
    merged = [group for group in groups.values() if len(group) > 1]
    if merged:
        log(f"{where}: one class each, although written in several ways: {_shown(merged)}")
    return {
        name: key if len(group) > 1 else name for key, group in groups.items() for name in group
    }


def fold(name: str) -> str:
    """Return what is left of a name without case, blanks, hyphens and width of characters."""
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", name).casefold()).strip()


def name_similar(names: Iterable[str], where: Path) -> None:
    """Log classes that are kept apart although their names hardly differ."""
    similar = [group for group in _alike(names, fold).values() if len(group) > 1]
    if similar:
        log(
            f"{where}: classes kept apart that differ only in case, blanks or hyphens: "
            f"{_shown(similar)}; if they are one class, write them alike"
        )


def _alike(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        groups[key(name)].append(name)
    return groups


def _shown(groups: list[list[str]]) -> str:
    # ASCII: the two forms of an accented letter would look the same
    shown = "; ".join(" and ".join(ascii(name) for name in group) for group in groups[:5])
    return shown + (" ..." if len(groups) > 5 else "")
