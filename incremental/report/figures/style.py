"""How a row looks: one colour, marker and dash for each method, the same in every figure.

The style of a known method stands in `METHODS`; any other name gets one from a hash of the name.
Rows of one method share its colour and differ in marker and dash. Nothing depends on the rank of a
row, so a method looks the same in every report.

Every method of the table has a marker of its own, and those that share a dash differ in colour for
readers with normal, protan, deutan and tritan vision and in lightness on grey paper
(`tests/incremental/report/test_style.py` computes it).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from avcil.incremental.report.labels import details
from avcil.incremental.report.rows import Row

LIGHT = (
    "#12263e", "#5d4517", "#0072b2", "#c98303", "#3c1f8b", "#902273", "#e80643", "#fa01ee",
)  # fmt: skip
"""Colours on white: two sets of four, which differ in lightness within a set."""
DARK = (
    "#f2f4f7", "#a5803a", "#56b4e9", "#ffd23d", "#8f7dff", "#a8427f", "#ff8468", "#ffb8f7",
)  # fmt: skip
"""The same colours on a dark page."""
DASHES = ((), (4.0, 1.6), (1.1, 1.3), (6.0, 1.4, 1.1, 1.4), (9.0, 1.5, 1.1, 1.5, 1.1, 1.5))
"""Lengths of ink and gap, in line widths."""
Outline = tuple[tuple[float, float], ...]


def _ring(corners: int, turn: float, radii: Sequence[float] = (1.0,)) -> Outline:
    """Return the corners of a star or polygon around 0, y upwards; `turn` is in degrees."""
    angles = [math.radians(turn + 360 * i / corners) for i in range(corners)]
    return tuple(
        (
            round(radii[i % len(radii)] * math.cos(a), 3),
            round(radii[i % len(radii)] * math.sin(a), 3),
        )
        for i, a in enumerate(angles)
    )


_PLUS: Outline = (
    (-0.33, -1), (0.33, -1), (0.33, -0.33), (1, -0.33), (1, 0.33), (0.33, 0.33),
    (0.33, 1), (-0.33, 1), (-0.33, 0.33), (-1, 0.33), (-1, -0.33), (-0.33, -0.33),
)  # fmt: skip
SHAPES: dict[str, Outline] = {
    "circle": _ring(24, 0, (0.92,)),
    "square": ((-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)),
    "diamond": ((0, -1.2), (0.8, 0), (0, 1.2), (-0.8, 0)),
    "up": _ring(3, 90, (1.15,)),
    "down": _ring(3, -90, (1.15,)),
    "left": _ring(3, 180, (1.15,)),
    "right": _ring(3, 0, (1.15,)),
    "plus": _PLUS,
    "cross": tuple((round((x - y) * 0.71, 3), round((x + y) * 0.71, 3)) for x, y in _PLUS),
    "star": _ring(10, 90, (1.25, 0.5)),
}
"""Corners of each marker, in [-1.25, 1.25], y upwards."""


@dataclass(frozen=True, slots=True)
class Style:
    """How the line and the points of one series are drawn."""

    color: int
    """Place in `LIGHT` and `DARK`."""
    shape: str
    """Key of `SHAPES`."""
    filled: bool
    """False for a marker of which only the outline is drawn."""
    dash: int
    """Place in `DASHES`."""

    @property
    def mark(self) -> tuple[str, bool, int]:
        """Marker and dash: what is left without colour."""
        return self.shape, self.filled, self.dash


METHODS = {
    "guided": Style(2, "circle", True, 0),
    "finetune": Style(3, "square", True, 0),
    "joint": Style(0, "diamond", True, 0),
    "avcil": Style(1, "up", True, 0),
    "lwf": Style(4, "down", True, 1),
    "icarl-nme": Style(5, "plus", True, 1),
    "icarl-fc": Style(7, "plus", False, 1),
    "ssil": Style(6, "cross", True, 1),
    "derpp": Style(2, "star", True, 2),
    "duet": Style(0, "circle", False, 2),
    "simplecil": Style(5, "square", False, 3),
    "klda": Style(7, "down", False, 3),
    "slda": Style(3, "diamond", False, 2),
    "ranpac": Style(1, "up", False, 2),
    "afc-nme": Style(6, "left", True, 3),
    "afc-lsc": Style(4, "left", False, 3),
}
"""Styles of the methods that ship with the package."""
MARKS = tuple(product(SHAPES, (True, False), range(len(DASHES))))
"""[100] every marker with every dash."""


def method_style(name: str) -> Style:
    """Return the style of a method; that of an unknown name comes from a hash of the name."""
    if name in METHODS:
        return METHODS[name]
    number = _hash(name)
    shape, filled, dash = MARKS[number % len(MARKS)]
    return Style(number // len(MARKS) % len(LIGHT), shape, filled, dash)


def row_styles(rows: Sequence[Row]) -> list[Style]:
    """Return a style for each row; up to 100 rows, no two share both marker and dash.

    A row with the usual settings has the style of its method. Others take a marker and a dash from
    a hash of their settings, or the next free ones where another row of the report has them.
    """
    found: dict[int, Style] = {}
    taken: set[tuple[str, bool, int]] = set()
    for _, _, place in sorted(
        (_claim(row), row.method + row.digest, place) for place, row in enumerate(rows)
    ):
        found[place] = _free(rows[place], taken)
        taken.add(found[place].mark)
    return [found[place] for place in range(len(rows))]


def _claim(row: Row) -> int:
    """Return who chooses first: known methods as usual, other methods as usual, variants."""
    return 2 if _varied(row) else int(row.method not in METHODS)


def _varied(row: Row) -> bool:
    return row.modality != "av" or not row.usual_head or bool(details(row))


def _free(row: Row, taken: Iterable[tuple[str, bool, int]]) -> Style:
    """Return the style that a row asks for, or the next one whose marker and dash are free."""
    wanted = method_style(row.method)
    if wanted.mark not in taken and not _varied(row):
        return wanted
    start = _hash(row.digest if _varied(row) else row.method) % len(MARKS)
    turned = [*MARKS[start:], *MARKS[:start]]
    shape, filled, dash = next((mark for mark in turned if mark not in taken), turned[0])
    return Style(wanted.color, shape, filled, dash)


def series_style(place: int) -> Style:
    """Return the style of a series that is no method, such as a loss term, by its place."""
    known = list(METHODS.values())
    return known[place % len(known)]


def _hash(text: str) -> int:
    return int.from_bytes(
        hashlib.sha256(text.encode("utf-8", "backslashreplace")).digest()[:8], "big"
    )
