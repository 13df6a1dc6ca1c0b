"""Names of data sets, classes and clips.

They come from files of unknown origin and are used in paths, tables and messages.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable

from avcil.cache.errors import NameRefused

LONGEST = 255  # bytes of a file name


def check_names(dataset: str, classes: Iterable[str]) -> None:
    """Check the names in a cache's header.

    Raises:
        NameRefused: the data set's name is not a valid folder name, or two classes have the same
            name.
    """
    if (
        dataset in ("", ".", "..")
        or "/" in dataset
        or not dataset.isprintable()
        or len(dataset.encode()) > LONGEST
    ):
        raise NameRefused(
            f"{dataset[:LONGEST]!r} cannot be the name of a data set: folders are named after it, "
            f"so it must be 1 to {LONGEST} bytes of printable text without '/', not '.' or '..'"
        )
    for name, count in Counter(classes).items():
        if count > 1:
            raise NameRefused(f"{count} classes have the name {name!r}: give each its own name")
        if any("\ud800" <= character <= "\udfff" for character in name):
            raise NameRefused(f"the class name {name!r} is not valid Unicode text")


def printable(text: str) -> str:
    """Escape control characters, which would move the cursor or hide text in a terminal."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def code_points(name: str, others: Iterable[str]) -> str:
    """Return the non-ASCII characters as " [U+00E9]" if another name looks the same, else ""."""
    looks = unicodedata.normalize("NFKC", name)
    if not any(each != name and unicodedata.normalize("NFKC", each) == looks for each in others):
        return ""
    points = " ".join(f"U+{ord(each):04X}" for each in name if not each.isascii())
    return f" [{points or 'ASCII'}]"
