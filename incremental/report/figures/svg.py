"""Figures as SVG for the page: they follow its colours, and every mark says its figures.

Marks carry `data-tip` for the pointer and the keyboard, and `data-series` for the legend's
switches and the table's filter. Colours are the page's variables --s0 to --s7.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from avcil.incremental.report.figures.curves import Curve, Point, pareto_front, pieces
from avcil.incremental.report.figures.style import DASHES, SHAPES, Style, series_style

WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 44
MARK, LARGE_MARK = 4.0, 6.0
"""Size of a marker, half its width in pixels."""
CELL = 40
WORDS_UP_TO = 12
"""Most rows of a matrix whose cells are wide enough for figures."""
NAME, SHORT_NAME = 22, 4
"""Longest name beside a matrix, and longest name above it that is not turned, letters."""
NO_VALUE = 0xFFFF
DOTS_UP_TO = 60
"""Most points of a curve that are marked one by one."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of values and the pixels that it is drawn on."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        """Return about five round values within the range."""
        span = (self.high - self.low) or 1.0
        power = 10.0 ** math.floor(math.log10(span))
        step = next(power * part for part in (0.2, 0.5, 1, 2) if span / (power * part) <= 7)
        first = -(-self.low // step) * step
        count = int((self.high - first) / step + 1e-9) + 1
        return [first + i * step for i in range(count)]


def look(style: Style) -> str:
    """Return the colour and dash of a series as CSS."""
    dash = " ".join(f"{2 * length:g}" for length in DASHES[style.dash]) or "none"
    return f"--c:var(--s{style.color});--d:{dash}"


def mark(style: Style, x: float, y: float, size: float, tip: str = "") -> str:
    """Return a marker at a point."""
    corners = "L".join(f"{x + size * a:.1f} {y - size * b:.1f}" for a, b in SHAPES[style.shape])
    words = f' data-tip="{escape(tip)}"' if tip else ""
    hollow = "" if style.filled else " hollow"
    return f'<path class="mark{hollow}" d="M{corners}Z"{words}/>'


def sample(style: Style) -> str:
    """Return a short line with the marker, for legends."""
    return (
        '<svg class="sample" viewBox="0 0 36 14" aria-hidden="true">'
        f'<polyline points="0,7 36,7"/>{mark(style, 18, 7, 5)}</svg>'
    )


def line_chart(
    curves: Sequence[Curve],
    x_title: str,
    y_title: str,
    description: str,
    starts: Sequence[float] = (),
) -> str:
    """Draw curves with their bands, cut before each of `starts`."""
    highs = [y + d for c in curves for y, d in zip(c.y, c.deviation, strict=True)]
    lows = [y - d for c in curves for y, d in zip(c.y, c.deviation, strict=True)]
    xs = [x for c in curves for x in c.x]
    across, up = _axes(xs, [*lows, *highs])
    marks = "".join(
        _curve(place, curve, across, up, x_title, starts) for place, curve in enumerate(curves)
    )
    return _figure(across, up, x_title, y_title, description, marks)


def _curve(
    place: int, curve: Curve, across: Axis, up: Axis, x_title: str, starts: Sequence[float]
) -> str:
    pairs = list(zip(curve.x, curve.y, curve.deviation, strict=True))
    top = [f"{across(x)},{up(y + d)}" for x, y, d in pairs]
    bottom = [f"{across(x)},{up(y - d)}" for x, y, d in reversed(pairs)]
    band = "" if not any(curve.deviation) else f'<polygon points="{" ".join(top + bottom)}"/>'
    tips = [f"{curve.label}: {_spread(y, d)} at {x:g} {x_title}" for x, y, d in pairs]
    style = curve.style or series_style(place)
    dots = "".join(
        mark(style, across(x), up(y), MARK, tip) for (x, y, _), tip in zip(pairs, tips, strict=True)
    )
    lines = "".join(_polyline(x, y, across, up) for x, y in pieces(curve, starts))
    marks = f"{band}{lines}{dots if len(pairs) <= DOTS_UP_TO else ''}"
    series = f'data-series="{place}" style="{look(style)}"'
    row = "" if curve.place is None else f' data-row="{curve.place}"'
    return f"<g {series}{row}>{marks}</g>"


def _polyline(x: Sequence[float], y: Sequence[float], across: Axis, up: Axis) -> str:
    points = " ".join(f"{across(a)},{up(b)}" for a, b in zip(x, y, strict=True))
    return f'<polyline points="{points}"/>'


def _spread(value: float, deviation: float) -> str:
    return f"{value:.2f} ± {deviation:.2f}" if deviation else f"{value:.2f}"


def cloud(
    points: Sequence[Point], x_title: str, y_title: str, description: str, *, costs: bool = True
) -> str:
    """Draw points with bars of one standard deviation.

    Where x is a cost, it starts at 0, and the points that no cheaper one beats are joined.
    """
    lows = [p.y - p.deviation for p in points]
    highs = [p.y + p.deviation for p in points]
    spans = [x for p in points for x in (p.x - p.x_deviation, p.x + p.x_deviation)]
    across, up = _axes([0.0, *spans] if costs else spans, [*lows, *highs])
    line = " ".join(f"{across(p.x)},{up(p.y)}" for p in pareto_front(points))
    marks = f'<polyline class="front" points="{line}"/>' if costs else ""
    for point in points:
        style = point.style or series_style(point.place)
        x, y = across(point.x), up(point.y)
        bars = f"M{x} {up(point.y - point.deviation)}V{up(point.y + point.deviation)}"
        bars += f"M{across(point.x - point.x_deviation)} {y}H{across(point.x + point.x_deviation)}"
        tip = f"{point.label}: {_spread(point.y, point.deviation)} at {point.x:.1f} {x_title}"
        marks += (
            f'<g data-series="{point.place}" data-row="{point.place}" style="{look(style)}">'
            f'<path class="bar" d="{bars}"/>'
            f"{mark(style, x, y, LARGE_MARK, tip)}</g>"
        )
    return _figure(across, up, x_title, y_title, description, marks)


def _axes(xs: Sequence[float], ys: Sequence[float]) -> tuple[Axis, Axis]:
    """Return axes with a little air above and below."""
    air = 0.05 * ((max(ys) - min(ys)) or 1.0)
    across = Axis(min(xs), max(xs), LEFT + 8, WIDTH - RIGHT - 8)
    return across, Axis(min(ys) - air, max(ys) + air, HEIGHT - BOTTOM, TOP)


def _figure(
    across: Axis, up: Axis, x_title: str, y_title: str, description: str, marks: str
) -> str:
    grid = "".join(_tick_y(up, value) for value in up.ticks())
    grid += "".join(_tick_x(across, value) for value in across.ticks())
    titles = (
        f'<text class="title" x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 6}">{escape(x_title)}</text>'
        f'<text class="title" transform="translate(13 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)">'
        f"{escape(y_title)}</text>"
    )
    return _svg(WIDTH, HEIGHT, description, f"{grid}{titles}{marks}")


def _tick_y(up: Axis, value: float) -> str:
    y = up(value)
    return (
        f'<path class="grid" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>'
        f'<text class="tick end" x="{LEFT - 6}" y="{y + 4}">{value:g}</text>'
    )


def _tick_x(across: Axis, value: float) -> str:
    return f'<text class="tick" x="{across(value)}" y="{HEIGHT - BOTTOM + 18}">{value:g}</text>'


def _svg(width: float, height: float, description: str, inside: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" style="max-width:{1.15 * width:.0f}px" role="img" '
        f'aria-label="{escape(description)}">'
        f"{inside}</svg>"
    )


def matrix(
    values: Sequence[Sequence[float]],
    row_names: Sequence[str],
    column_names: Sequence[str],
    tip: Callable[[int, int], str],
    description: str,
) -> str:
    """Draw a table of values in [0, 100] as shaded cells; rows may be of different lengths.

    Meant for up to `WORDS_UP_TO` rows; the page draws larger ones from `packed`.
    """
    left = 12 + 7 * min(NAME, max(map(len, row_names)))
    upright = max(map(len, column_names)) > SHORT_NAME
    top = 12 + (7 * min(NAME, max(map(len, column_names))) if upright else 14)
    inside = "".join(
        _cell(left + j * CELL, top + i * CELL, value, tip(i, j))
        for i, row in enumerate(values)
        for j, value in enumerate(row)
    )
    for i, name in enumerate(row_names):
        inside += _name(name, f'class="tick end" x="{left - 6}" y="{top + (i + 0.5) * CELL + 4}"')
    for j, name in enumerate(column_names):
        x, y = left + (j + 0.5) * CELL, top - 8
        turned = f'class="tick start" transform="translate({x + 4} {y}) rotate(-90)"'
        inside += _name(name, turned if upright else f'class="tick" x="{x}" y="{y}"')
    width = left + CELL * max(len(row) for row in values) + 4
    return _svg(width, top + CELL * len(values) + 4, description, inside)


def _name(name: str, where: str) -> str:
    """Return a name beside or above cells, cut where it is long; the pointer shows all of it."""
    short = name if len(name) <= NAME else name[: NAME - 1] + "…"
    title = "" if short == name else f"<title>{escape(name)}</title>"
    return f"<text {where}>{escape(short)}{title}</text>"


def _cell(x: float, y: float, value: float, tip: str) -> str:
    strong = " strong" if value >= 55 else ""
    return (
        f'<g class="cell" style="--v:{value:.1f}%"><rect x="{x}" y="{y}" width="{CELL - 1}" '
        f'height="{CELL - 1}" data-tip="{escape(tip)}"/>'
        f'<text class="value{strong}" x="{x + CELL / 2}" y="{y + CELL / 2 + 4}">{value:.0f}</text>'
        "</g>"
    )


def packed(values: Sequence[Sequence[float]]) -> str:
    """Return values in [0, 100] in tenths of a per cent for the page's script.

    Base64 of a zlib stream of [N, N] low bytes, then [N, N] high bytes; 65535 where rows of
    different lengths have no value. Rows of a confusion matrix add up to 1000, so that the size
    is bounded: 500 classes take at most about 120 KB, however the clips are spread.
    """
    width = max(map(len, values))
    flat: list[int] = []
    for row in values:
        flat += [round(10 * value) for value in row] + [NO_VALUE] * (width - len(row))
    planes = bytes(cell & 255 for cell in flat) + bytes(cell >> 8 for cell in flat)
    return base64.b64encode(zlib.compress(planes, 9)).decode()
