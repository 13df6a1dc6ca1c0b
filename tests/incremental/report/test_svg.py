"""Drawings for the page: round ticks, every mark in the picture, texts that cannot be markup."""

import re

import pytest

from avcil.incremental.report.figures.curves import Curve, Point
from avcil.incremental.report.figures.svg import (
    HEIGHT,
    WIDTH,
    Axis,
    cloud,
    line_chart,
    matrix,
)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (-3, 75, [0, 20, 40, 60]),
        (0, 0.7, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        (0, 340, [0, 50, 100, 150, 200, 250, 300]),
        (2, 10, [2, 4, 6, 8, 10]),
    ],
)
def test_ticks_are_round_and_within_the_range(low: float, high: float, ticks: list[float]) -> None:
    assert Axis(low, high, 0, 1).ticks() == pytest.approx(ticks)


def test_a_range_without_width_has_a_tick_and_a_place() -> None:
    axis = Axis(5, 5, 10, 20)
    assert axis.ticks() == [5]
    assert axis(5) == 10


def positions(drawing: str) -> list[tuple[float, float]]:
    return [
        (float(x), float(y))
        for x, y in re.findall(
            r"[ML]([-\d.]+) ([-\d.]+)",
            " ".join(re.findall(r'class="mark[^"]*" d="([^"]*)"', drawing)),
        )
    ]


def test_every_mark_lies_within_the_picture() -> None:
    lines = [Curve("a", [2, 4], [90, -5], [30, 0]), Curve("b", [2, 4], [50, 60], [0, 0])]
    points = [Point("a", 0, 50, 9, 0), Point("b", 1e6, 70, 0, 1)]
    for drawing in (line_chart(lines, "x", "y", "d"), cloud(points, "x", "y", "d")):
        assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in positions(drawing))


def test_names_are_escaped_everywhere() -> None:
    name = '<b>"&'
    drawings = [
        line_chart([Curve(name, [1, 2], [1, 2], [0, 0])], name, name, name),
        cloud([Point(name, 1, 2, 0, 0)], name, name, name),
        matrix([[1.0]], [name], [name], lambda i, j: name, name),
    ]
    assert not any("<b>" in drawing for drawing in drawings)
