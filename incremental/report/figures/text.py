"""Names of any script in figures: taken literally, in a font that has them, of bounded length.

matplotlib draws a box for a character that no font has. So characters are looked up in the
installed fonts first; a class whose name cannot be drawn stands as its number, other texts show
the code point.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache

BASE = "DejaVu Sans"
"""Comes with matplotlib: Latin, Greek, Cyrillic, Arabic, Hebrew and many symbols."""
ELLIPSIS = "…"
NOT_DRAWN = "class names that no installed font has are numbers"


@cache
def _characters(path: str) -> frozenset[int]:
    """Return the code points that a font file can draw; none of a bitmap font."""
    from matplotlib.ft2font import FT2Font

    try:
        face = FT2Font(path)
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(face.get_charmap()) if face.scalable else frozenset()


@cache
def _fonts_by_preference() -> tuple[tuple[str, str], ...]:
    """Return name and file of every installed font, upright and of medium weight first."""
    from matplotlib.font_manager import fontManager

    def preference(font: object) -> tuple[object, ...]:
        name, style, weight = (getattr(font, key) for key in ("name", "style", "weight"))
        return "Sans" not in name, style != "normal", str(weight) not in ("400", "normal"), name

    fonts = sorted(fontManager.ttflist, key=preference)
    return tuple((font.name, str(font.fname)) for font in fonts if "Last Resort" not in font.name)


@cache
def _base() -> frozenset[int]:
    from matplotlib.font_manager import findfont

    return _characters(str(findfont(BASE)))


@cache
def _font_with(character: str) -> str | None:
    """Return the first font that can draw a character; None if there is none."""
    if ord(character) in _base():
        return BASE
    for name, path in _fonts_by_preference():
        if ord(character) in _characters(path):
            return name
    return None


def families(texts: Iterable[str]) -> list[str]:
    """Return the fonts that together draw some texts, in the order in which to try them."""
    needed = {name for character in set("".join(texts)) if (name := _font_with(character))}
    return [BASE, *sorted(needed - {BASE})]


def is_drawable(text: str) -> bool:
    """Tell whether installed fonts have every character of a text."""
    return all(map(_font_with, _cleaned(text)))


def literal(text: str, most: int | None = None) -> str:
    """Return a text as it can be drawn: no control characters, code points where no font helps.

    Args:
        text: any text.
        most: longest result; a longer one is cut with an ellipsis.
    """
    drawn = "".join(
        character if _font_with(character) else f"U+{ord(character):04X}"
        for character in _cleaned(text)
    )
    return shortened(drawn, most)


def _cleaned(text: str) -> str:
    """Return a text on one line, without characters that show nothing."""
    kinds = [(character, unicodedata.category(character)) for character in text]
    visible = "".join(" " if kind == "Cc" else c for c, kind in kinds if kind not in ("Cf", "Mn") or
                      (kind == "Mn" and not "\ufe00" <= c <= "\ufe0f"))  # fmt: skip
    return " ".join(visible.split())


def shortened(text: str, most: int | None) -> str:
    """Return a text of at most `most` columns, those of wide characters counted twice."""
    if most is None or columns(text) <= most:
        return text
    kept = text
    while kept and columns(kept) > most - 1:
        kept = kept[:-1]
    return kept.rstrip() + ELLIPSIS


def columns(text: str) -> int:
    """Return the width of a text in columns of Latin letters."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide


def class_names(names: Sequence[str], most: int) -> list[str]:
    """Return names for an axis: no two alike, and a number for one that cannot be drawn."""
    short = [
        literal(name, most) if is_drawable(name) and _cleaned(name) else f"class {number}"
        for number, name in enumerate(names, start=1)
    ]
    return [
        shortened(f"{number} {name}", most) if short.count(name) > 1 else name
        for number, name in enumerate(short, start=1)
    ]
