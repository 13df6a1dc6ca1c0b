"""Matrices as pictures: accuracy of each task after each task, and confusions of classes.

A matrix is one image however many cells it has; up to 12 rows, cells carry their figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from avcil.incremental.report.figures import curves
from avcil.incremental.report.figures.canvas import WIDTHS, Size, drawing
from avcil.incremental.report.figures.text import (
    NOT_DRAWN,
    class_names,
    is_drawable,
    literal,
    shortened,
)
from avcil.incremental.report.rows import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

WORDS_UP_TO = 12
"""Most rows of a matrix whose cells are wide enough for figures."""
SMALLEST_TYPE = 4.5
NAMES_UP_TO = {"column": 30, "page": 60}
"""Most classes whose names stand on the axes of a confusion matrix."""
NAME = 20
"""Longest name of a class on an axis, letters."""


def draw_matrices(rows: Sequence[Row], size: Size = "column") -> Figure:
    """Draw the accuracy matrix of every row, mean over its runs."""
    from matplotlib.figure import Figure

    across = min(len(rows), {"column": 3, "page": 5}[size])
    down = -(-len(rows) // across)
    panel = WIDTHS[size] / across
    tall = panel + 0.3
    labels = [shortened(literal(row.label), int(panel / 0.065)) for row in rows]
    with drawing(labels):
        figure = Figure(figsize=(WIDTHS[size], tall * down + 0.5), layout="constrained")
        panels = figure.subplots(down, across, squeeze=False).flatten()
        for place, (axes, row) in enumerate(zip(panels, rows, strict=False)):
            image = _shade(axes, curves.mean_matrix(row), labels[place], panel)
        for axes in panels[len(rows) :]:
            axes.set_axis_off()
        figure.supylabel("after task", fontsize=7)
        title = "accuracy (%) on task (across), higher is better"
        _bar(figure, image, list(panels), title)
    return figure


def _bar(figure: Figure, image: AxesImage, panels: Sequence[Axes], title: str) -> None:
    bar = figure.colorbar(image, ax=panels, location="bottom", aspect=40, fraction=0.05, pad=0.02)
    bar.set_label(title, fontsize=7)
    bar.ax.tick_params(labelsize=6)
    bar.outline.set_visible(False)


def _shade(axes: Axes, values: Sequence[Sequence[float]], title: str, width: float) -> AxesImage:
    """Draw rows of figures in [0, 100], which may grow in length, as one image.

    Args:
        axes: where.
        values: [N] rows.
        title: above it.
        width: of the axes, inches, which decides whether cells carry figures.
    """
    size = len(values)
    grid = np.full((size, max(map(len, values))), np.nan)
    for i, row in enumerate(values):
        grid[i, : len(row)] = row
    image = axes.imshow(grid, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    axes.set_title(title, fontsize=7)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(labelsize=6, length=2)
    if size <= WORDS_UP_TO:
        names = [str(i + 1) for i in range(size)]
        axes.set_xticks(range(len(grid[0])), names[: len(grid[0])])
        axes.set_yticks(range(size), names)
        _write_cells(axes, values, min(7.0, 0.8 * width * 72 / size * 0.4))
    return image


def _write_cells(axes: Axes, values: Sequence[Sequence[float]], points: float) -> None:
    if points < SMALLEST_TYPE:
        return
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            ink = "white" if value > 60 else "black"
            axes.text(j, i, f"{value:.0f}", ha="center", va="center", color=ink, fontsize=points)


def draw_confusion(
    names: Sequence[str], counts: Sequence[Sequence[int]], title: str, size: Size = "column"
) -> Figure:
    """Draw how the clips of each class were classified after the last task."""
    from matplotlib.figure import Figure

    values = [[100 * n / (sum(row) or 1) for n in row] for row in counts]
    short, width = class_names(names, NAME), WIDTHS[size]
    title = shortened(literal(title), int(width / 0.06))
    named = len(names) <= NAMES_UP_TO[size]
    with drawing([*short, title]):
        figure = Figure(figsize=(width, width + 0.6), layout="constrained")
        axes = figure.subplots()
        image = _shade(axes, values, title, width * (0.65 if named else 0.85))
        if named:
            points = min(6.0, 0.6 * width * 72 / len(names))
            axes.set_xticks(range(len(names)), short, rotation=90, fontsize=points)
            axes.set_yticks(range(len(names)), short, fontsize=points)
        unit = "class" if named else "number of the class"
        axes.set_xlabel(f"predicted {unit}", fontsize=7)
        axes.set_ylabel(f"true {unit}, in learning order", fontsize=7)
        _bar(figure, image, [axes], "share of the true class (%)")
        if named and not all(map(is_drawable, names)):
            figure.supxlabel(NOT_DRAWN, fontsize=6)
    return figure
