"""Names of splits and classes, which may be written in several ways."""

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
"""Names of splits that are understood by default, in upper or lower case."""
SPLIT_LIKE = {
    *SPLIT_NAMES, "training", "dev", "development", "eval", "evaluation", "testing", "holdout",
}  # fmt: skip


def split_names(text: str) -> dict[str, Split]:
    """Read the user's own names of splits, such as `train=learn,test=exam`.

    Raises:
        DatasetError: the text is malformed, or names an unknown split.
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
        others: the user's own names, which take precedence.
    """
    key = name.strip().casefold()
    return others.get(key) or SPLIT_NAMES.get(key)


def looks_like_a_split(name: str) -> bool:
    """Return whether a name such as `train_set` or `Test2017` probably means a split."""
    return re.sub(r"[\W\d_]+|set$", "", name.casefold()) in SPLIT_LIKE


def one_spelling(names: Iterable[str], where: Path) -> dict[str, str]:
    """Map each class name to one spelling, and log what was merged.

    Names that differ only in the Unicode form of accents or in blanks at the ends look the same
    on a screen, and are one class.
    """
    groups = _alike(names, lambda name: unicodedata.normalize("NFC", name).strip())
    merged = [group for group in groups.values() if len(group) > 1]
    if merged:
        log(f"{where}: spellings that are read as one class: {_shown(merged)}")
    return {
        name: key if len(group) > 1 else name for key, group in groups.items() for name in group
    }


def fold(name: str) -> str:
    """Return a name without differences in case, blanks, hyphens and character width."""
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", name).casefold()).strip()


def name_similar(names: Iterable[str], where: Path) -> None:
    """Log the classes whose names are almost the same."""
    similar = [group for group in _alike(names, fold).values() if len(group) > 1]
    if similar:
        log(
            f"{where}: classes kept apart that differ only in case, blanks or hyphens: "
            f"{_shown(similar)}; if they are one class, spell them the same way"
        )


def _alike(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        groups[key(name)].append(name)
    return groups


def _shown(groups: list[list[str]]) -> str:
    # ASCII, because the two forms of an accented letter look the same
    shown = "; ".join(" and ".join(ascii(name) for name in group) for group in groups[:5])
    return shown + (" ..." if len(groups) > 5 else "")
