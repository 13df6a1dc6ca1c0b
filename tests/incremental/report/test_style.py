"""A method looks the same in every report, and unlike the others to every reader and in grey."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from numpy.typing import NDArray

from avcil.incremental.methods import METHODS as REGISTERED
from avcil.incremental.report.figures.curves import accuracy_curves
from avcil.incremental.report.figures.style import (
    DARK,
    DASHES,
    LIGHT,
    METHODS,
    SHAPES,
    Style,
    method_style,
    row_styles,
)
from avcil.incremental.report.make import Format, render
from avcil.incremental.report.rows import Row
from avcil.incremental.report.select import benchmarks, gather

MakeRun = Callable[..., Path]
VISION = {
    "normal": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
               [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
"""Linear RGB to linear RGB, for complete loss of a kind of cone.

Source: Machado, Oliveira and Fernandes, IEEE TVCG 2009, severity 1.0.
"""
TO_XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
          [0.0193339, 0.1191920, 0.9503041]]  # fmt: skip
APART, APART_IN_GREY = 20.0, 7.5
"""Least distance of colours in CIELAB; 2.3 is just noticeable side by side."""


def linear(color: str) -> NDArray[np.float64]:
    parts = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    xyz = np.array(TO_XYZ) @ rgb.clip(0, 1) / [0.95047, 1, 1.08883]
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(a: str, b: str, vision: str) -> float:
    if vision == "grey":
        return float(abs(lab(linear(a))[0] - lab(linear(b))[0]))
    seen = [lab(np.array(VISION[vision]) @ linear(color)) for color in (a, b)]
    return float(np.linalg.norm(seen[0] - seen[1]))


@pytest.mark.parametrize("colors", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("vision", [*VISION, "grey"])
def test_methods_that_share_a_dash_differ_in_colour(colors: tuple[str, ...], vision: str) -> None:
    least = APART_IN_GREY if vision == "grey" else APART
    near = [
        (a, b)
        for (a, one), (b, two) in itertools.combinations(METHODS.items(), 2)
        if one.dash == two.dash and distance(colors[one.color], colors[two.color], vision) < least
    ]
    assert near == []


def test_every_method_has_a_marker_of_its_own() -> None:
    markers = [(style.shape, style.filled) for style in METHODS.values()]
    assert len(set(markers)) == len(markers)


def test_markers_and_dashes_cannot_be_taken_for_each_other() -> None:
    axis = np.linspace(-1.3, 1.3, 60)
    grid = np.array([(x, y) for x in axis for y in axis])
    masks = [Outline(np.array(corners)).contains_points(grid) for corners in SHAPES.values()]
    for a, b in itertools.combinations(masks, 2):
        assert (a ^ b).sum() / (a | b).sum() > 0.15
    assert len(set(DASHES)) == len(DASHES)


@pytest.mark.parametrize(("colors", "paper"), [(LIGHT, "#ffffff"), (DARK, "#14171a")])
def test_every_colour_stands_out_from_the_paper(colors: tuple[str, ...], paper: str) -> None:
    def luminance(color: str) -> float:
        return float(np.array(TO_XYZ[1]) @ linear(color)) + 0.05

    for color in colors:
        light, dark = sorted((luminance(color), luminance(paper)), reverse=True)
        assert light / dark >= 3  # WCAG 2.2, 1.4.11


def test_every_method_of_the_package_has_a_style() -> None:
    assert set(METHODS) == set(REGISTERED)


def rows_of(root: Path) -> list[Row]:
    return benchmarks(gather([root]).runs)[0][0].rows


def test_a_method_keeps_its_style_whatever_its_rank_and_company(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run("lwf", correct=[[20], [20, 20]], tasks=2, total=[20, 20])
    (alone,) = row_styles(rows_of(tmp_path))
    for name in ("guided", "joint", "somebody's"):
        make_run(name, correct=[[20], [20, 20]], tasks=2, total=[20, 20], memory=10)
    make_run("finetune", correct=[[1], [0, 0]], tasks=2, total=[20, 20])
    rows = rows_of(tmp_path)
    styles = {row.method: style for row, style in zip(rows, row_styles(rows), strict=True)}
    assert styles["lwf"] == alone == METHODS["lwf"]
    assert styles["somebody's"] == method_style("somebody's")


def test_settings_of_one_method_share_its_colour_and_differ_in_marker_or_dash(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for memory in range(24):
        make_run("guided", memory=memory)
    rows = rows_of(tmp_path)
    styles = row_styles(rows)
    assert {style.color for style in styles} == {METHODS["guided"].color}
    assert len({style.mark for style in styles}) == 24
    mixed = random.Random(0).sample(rows, len(rows))
    again = {row.digest: style for row, style in zip(mixed, row_styles(mixed), strict=True)}
    assert [again[row.digest] for row in rows] == styles


def test_up_to_100_rows_are_told_apart_without_colour(make_run: MakeRun, tmp_path: Path) -> None:
    for name in [*METHODS, *(f"method {i}" for i in range(100 - len(METHODS)))]:
        make_run(name, epochs=1, tasks=2)
    styles = row_styles(rows_of(tmp_path))
    assert len({style.mark for style in styles}) == len(styles) == 100


def test_more_rows_than_styles_still_have_one(make_run: MakeRun, tmp_path: Path) -> None:
    make_run()
    row = rows_of(tmp_path)[0]
    rows = [dataclasses.replace(row, settings={**row.settings, "x": i}) for i in range(120)]
    assert all(isinstance(style, Style) for style in row_styles(rows))


def test_every_format_and_figure_names_methods_as_a_paper_does(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run("icarl-nme")
    for memory in (10, 20):
        make_run("guided", memory=memory)
    found, _ = benchmarks(gather([tmp_path]).runs)
    names = {"iCaRL-NME", "Guided, memory=10", "Guided, memory=20"}
    assert {curve.label for curve in accuracy_curves(found[0])} == names
    forms: tuple[Format, ...] = ("table", "markdown", "latex", "html")
    for form in forms:
        assert [name for name in names if name not in render(found, form)] == []
