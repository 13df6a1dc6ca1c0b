"""Figures as SVG for the page: they follow its colours, and every mark says its figures.

Marks carry `data-tip` for the pointer and the keyboard, and `data-series` for the legend's
switches. Colours are the page's variables --s0 to --s7; from the sixth series on, dashes help.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from avcil.incremental.report.figures.curves import Curve, Point, pareto_front, pieces

WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 44
COLORS = 8
DASHES = (*["none"] * 5, "6 3", "2 3", "8 3 2 3", *["4 4"] * 8)
CELL = 40
WORDS_UP_TO = 12
"""Most rows of a matrix whose cells are wide enough for figures."""
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


def color(place: int) -> str:
    """Return the style of one series: a colour, and dashes where colours come close."""
    return f"--c:var(--s{place % COLORS});stroke-dasharray:{DASHES[place % len(DASHES)]}"


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
    dots = "".join(_dot(across(x), up(y), tip) for (x, y, _), tip in zip(pairs, tips, strict=True))
    lines = "".join(_polyline(x, y, across, up) for x, y in pieces(curve, starts))
    marks = f"{band}{lines}{dots if len(pairs) <= DOTS_UP_TO else ''}"
    return f'<g data-series="{place}" style="{color(place)}">{marks}</g>'


def _polyline(x: Sequence[float], y: Sequence[float], across: Axis, up: Axis) -> str:
    points = " ".join(f"{across(a)},{up(b)}" for a, b in zip(x, y, strict=True))
    return f'<polyline points="{points}"/>'


def _spread(value: float, deviation: float) -> str:
    return f"{value:.2f} ± {deviation:.2f}" if deviation else f"{value:.2f}"


def _dot(x: float, y: float, tip: str) -> str:
    return f'<circle cx="{x}" cy="{y}" r="3.5" data-tip="{escape(tip)}"/>'


def cloud(points: Sequence[Point], x_title: str, y_title: str, description: str) -> str:
    """Draw points with error bars and the front that none beats."""
    lows = [p.y - p.deviation for p in points]
    highs = [p.y + p.deviation for p in points]
    across, up = _axes([0.0, *(p.x for p in points)], [*lows, *highs])
    line = " ".join(f"{across(p.x)},{up(p.y)}" for p in pareto_front(points))
    marks = f'<polyline class="front" points="{line}"/>'
    for point in points:
        x = across(point.x)
        bar = f'<path d="M{x} {up(point.y - point.deviation)}V{up(point.y + point.deviation)}"/>'
        tip = f"{point.label}: {_spread(point.y, point.deviation)} at {point.x:.1f} {x_title}"
        dot = _dot(x, up(point.y), tip).replace('r="3.5"', 'r="6"')
        style = f'data-series="{point.place}" style="{color(point.place)}"'
        marks += f"<g {style}>{bar}{dot}</g>"
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
    """Draw a table of values in [0, 100] as shaded cells; rows may be of different lengths."""
    size = CELL if len(values) <= WORDS_UP_TO else max(5, 480 // len(values))
    left, top = 62, 26
    inside = ""
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            inside += _cell(left + j * size, top + i * size, size, value, tip(i, j))
    if len(values) <= WORDS_UP_TO:
        inside += "".join(_row_name(name, top + i * size, left) for i, name in enumerate(row_names))
        inside += "".join(
            f'<text class="tick" x="{left + (j + 0.5) * size}" y="{top - 8}">{escape(name)}</text>'
            for j, name in enumerate(column_names)
        )
    width = left + size * max(len(row) for row in values) + 4
    return _svg(width, top + size * len(values) + 4, description, inside)


def _row_name(name: str, y: float, left: float) -> str:
    return f'<text class="tick end" x="{left - 6}" y="{y + CELL / 2 + 4}">{escape(name)}</text>'


def _cell(x: float, y: float, size: float, value: float, tip: str) -> str:
    shade = f"--v:{value:.1f}%"
    strong = " strong" if value >= 55 else ""
    word = ""
    if size >= CELL:
        middle = f'x="{x + size / 2}" y="{y + size / 2 + 4}"'
        word = f'<text class="value{strong}" {middle}>{value:.0f}</text>'
    return (
        f'<g class="cell" style="{shade}"><rect x="{x}" y="{y}" width="{size - 1}" '
        f'height="{size - 1}" data-tip="{escape(tip)}"/>{word}</g>'
    )
