"""Figures for papers, drawn with matplotlib: which there are, and how lines and points look.

Every function returns a figure; `canvas.save` writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from avcil.incremental.report.figures import curves
from avcil.incremental.report.figures.attention import draw_attention
from avcil.incremental.report.figures.canvas import (
    BAND,
    BAR,
    WIDTHS,
    Size,
    drawing,
    empty,
    legend,
    line_look,
    marker_look,
)
from avcil.incremental.report.figures.classes import draw_class_forgetting, draw_tasks
from avcil.incremental.report.figures.clock import trained_together
from avcil.incremental.report.figures.features import draw_features, drift_to_draw
from avcil.incremental.report.figures.matrices import draw_confusion, draw_matrices
from avcil.incremental.report.figures.style import series_style
from avcil.incremental.report.figures.sweeps import sweep_curves
from avcil.incremental.report.figures.text import fitted, literal
from avcil.incremental.report.rows import Benchmark, Row
from avcil.incremental.runs.attention import kept_attention

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Draw = Callable[[Size], "Figure"]
"""Draws a figure at a size."""
Drawn = Iterator[tuple[str, Draw]]
"""Names for files, and what draws the figure."""
SEEN = "classes seen"
ACCURACY = "accuracy (%)\nhigher is better"
TICKS_UP_TO = 10
"""Most points of a curve that have a tick each."""


def shared_figures(found: Benchmark, kind: str) -> Drawn:
    """Yield the figures of one kind that show all rows of a benchmark; none without data."""
    makers: dict[str, Callable[[Benchmark], Drawn]] = {
        "accuracy": lambda b: _curves(kind, curves.accuracy_curves(b), ACCURACY),
        "forgetting": lambda b: _curves(
            kind, curves.forgetting_curves(b), "forgetting (%)\nlower is better"
        ),
        "validation": lambda b: _curves(
            kind, curves.validation_curves(b), f"validation {ACCURACY}"
        ),
        "old-new": _old_new,
        "matrices": lambda b: iter([(kind, lambda size: draw_matrices(b.rows, size))]),
        "tasks": lambda b: iter([(kind, lambda size: draw_tasks(b, size))]),
        "time": _time,
        "memory": lambda b: _cloud(kind, curves.memory_points(b), "exemplars in memory"),
        "sweep": _sweeps,
    }
    if kind in makers and (kind != "forgetting" or len(found.sizes) > 1):
        yield from makers[kind](found)


def row_figures(row: Row, kind: str) -> Drawn:
    """Yield the figures of one kind that show one row; none where its runs lack the data."""
    run = row.runs[0]
    if kind in ("losses", "epochs"):
        values = curves.loss_curves if kind == "losses" else curves.validation_by_epoch
        lines, starts = values(run)
        unit = "loss" if kind == "losses" else f"validation {ACCURACY}"
        if lines:
            yield kind, lambda size: draw_epochs(lines, starts, row.name, unit, size)
    elif kind in ("confusion", "classes"):
        answers = curves.confusion(row)
        if answers and kind == "confusion":
            yield kind, lambda size: draw_confusion(*answers, row.name, size)
        elif answers and len(run.results.tasks) > 1:
            yield kind, lambda size: draw_class_forgetting(row, answers, size)
    elif kind == "features":
        if drift := drift_to_draw(row):
            yield kind, lambda size: draw_features(drift, row.name, size)
    elif kind == "attention":
        for number, kept in enumerate(kept_attention(run.folder, run.videos)):
            yield f"{kind}-{number}", partial(draw_attention, kept)


def _curves(name: str, lines: Sequence[curves.Curve], y_title: str) -> Drawn:
    if lines:
        yield name, lambda size: draw_curves(lines, SEEN, y_title, size)


def _cloud(name: str, points: Sequence[curves.Point], cost: str, note: str = "") -> Drawn:
    if len({point.x for point in points}) > 1:
        yield name, lambda size: draw_cloud(points, cost, f"mean {ACCURACY}", size, note=note)


def _old_new(found: Benchmark) -> Drawn:
    points = curves.old_new_points(found)
    if points:
        titles = (
            "accuracy on earlier classes (%)\nhigher is better",
            "accuracy on\nnew classes (%)\nhigher is better",
        )
        yield "old-new", lambda size: draw_cloud(points, *titles, size, costs=False)


def _time(found: Benchmark) -> Drawn:
    points = curves.time_points(found)
    together = trained_together(found.rows)
    note = "times compare between runs that ran alone on one machine"
    if all(together):
        note = "runs were trained at the same time: times do not compare"
    elif any(together):
        note = "* trained at the same time as other runs: times do not compare"
        points = [curves.marked(p) if together[p.place] else p for p in points]
    yield from _cloud("time", points, "training time (s), lower is better", note)


def _sweeps(found: Benchmark) -> Drawn:
    for setting, lines in sweep_curves(found).items():
        yield f"sweep-{setting}", partial(draw_curves, lines, setting, f"mean {ACCURACY}")


def draw_curves(
    lines: Sequence[curves.Curve], x_title: str, y_title: str, size: Size = "column"
) -> Figure:
    """Draw curves with bands of one standard deviation."""
    labels = [line.label for line in lines]
    note = BAND if any(any(line.deviation) for line in lines) else ""
    with drawing([*map(literal, labels), literal(x_title)]):
        figure, axes = empty(size, labels, title=note)
        for place, line in enumerate(lines):
            style = line.style or series_style(place)
            look = line_look(style)
            axes.plot(line.x, line.y, label=line.label, **look, **marker_look(style))
            low = [y - d for y, d in zip(line.y, line.deviation, strict=True)]
            high = [y + d for y, d in zip(line.y, line.deviation, strict=True)]
            axes.fill_between(line.x, low, high, color=look["color"], alpha=0.15, linewidth=0)
        axes.set(xlabel=literal(x_title), ylabel=y_title)
        xs = sorted({x for line in lines for x in line.x})
        if len(xs) <= TICKS_UP_TO:
            axes.set_xticks(xs, [f"{x:g}" for x in xs])
        legend(figure, axes, note)
    return figure


def draw_cloud(
    points: Sequence[curves.Point],
    x_title: str,
    y_title: str,
    size: Size = "column",
    *,
    costs: bool = True,
    note: str = "",
) -> Figure:
    """Draw points with bars of one standard deviation.

    Args:
        points: one for each row.
        x_title: title of the axis across.
        y_title: title of the axis upwards.
        size: width of the figure.
        costs: x is a cost; the points that no cheaper one beats are joined, and x starts at 0.
        note: line above the legend.
    """
    labels = [point.label for point in points]
    note = "\n".join(filter(None, [BAR if any(p.deviation for p in points) else "", note]))
    with drawing(map(literal, labels)):
        figure, axes = empty(size, labels, title=note, height=2.0 + 0.15 * note.count("\n"))
        if costs:
            front = curves.pareto_front(points)
            line = [p.x for p in front], [p.y for p in front]
            axes.step(*line, where="post", color="#888888", lw=0.8)
        for point in points:
            style = point.style or series_style(point.place)
            axes.errorbar(
                point.x, point.y, yerr=point.deviation or None, xerr=point.x_deviation or None,
                label=point.label, markersize=5, elinewidth=0.8, clip_on=False,
                **{**line_look(style), "linestyle": "none"}, **marker_look(style),
            )  # fmt: skip
        axes.set(xlabel=x_title, ylabel=y_title)
        if costs:
            axes.set_xlim(left=0)
        legend(figure, axes, note)
    return figure


def draw_epochs(
    lines: Sequence[curves.Curve],
    starts: Sequence[float],
    title: str,
    unit: str,
    size: Size = "column",
) -> Figure:
    """Draw values over the epochs of all tasks; dotted lines mark where a task begins."""
    title = fitted(title, WIDTHS[size] - 0.2, 8)
    labels = [line.label for line in lines] if len(lines) > 1 else []
    with drawing([title, *map(literal, labels)]):
        figure, axes = empty(size, labels)
        for place, line in enumerate(lines):
            look = line_look(series_style(place))
            for number, (x, y) in enumerate(curves.pieces(line, starts)):
                axes.plot(x, y, label=None if number else line.label, **look)
        for start in starts[1:]:
            axes.axvline(start, color="#999999", linewidth=0.6, linestyle=":")
        axes.set(xlabel="epoch, all tasks", ylabel=unit)
        figure.suptitle(title, fontsize=8)
        if labels:
            legend(figure, axes)
    return figure
