"""The report as one HTML file: no network, no server, light and dark, pointer and keyboard."""

from __future__ import annotations

import base64
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from itertools import groupby
from typing import TYPE_CHECKING, Any

from avcil.incremental.report.figures import curves, svg
from avcil.incremental.report.rows import Benchmark, Row
from avcil.incremental.report.tables.table import Column, Mark, Table, name_benchmark
from avcil.incremental.runs.attention import kept_attention

if TYPE_CHECKING:
    from jinja2 import Environment

MOST_POINTS = 240
"""Points kept of a loss curve: a line of that many cannot be told from more."""
MOST_PICTURES = 2
"""Pictures of attention for one row; each takes about 100 KB."""
CLASSES, ACCURACY = "classes seen", "accuracy, %"


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing with its caption and, where it has series, their names for the legend."""

    caption: str
    drawing: str
    legend: Sequence[tuple[int, str]] = ()
    """Place of each series, which decides its colour, and its name."""


@dataclass(frozen=True, slots=True)
class Detail:
    """What opens on a click on a row."""

    row: Row
    figures: Sequence[Figure]


def page(sections: Sequence[tuple[Benchmark, Sequence[Table]]], across: Sequence[Table]) -> str:
    """Return the whole page.

    Args:
        sections: each benchmark with its tables, the overview first.
        across: tables that compare benchmarks.
    """
    caches = [found.cache for found, _ in sections]
    template = _environment().get_template("page.html.j2")
    return template.render(
        sections=[_section(found, tables) for found, tables in sections],
        across=across,
        random=sorted({cache.encoder for cache in caches if cache.random_weights}),
        style=_file("page.css"),
        script=_file("page.js"),
    )


def _section(found: Benchmark, tables: Sequence[Table]) -> dict[str, Any]:
    return {
        "title": name_benchmark(found),
        "overview": tables[0],
        "tables": tables[1:],
        "figures": _figures(found),
        "details": [_detail(row) for row in found.rows],
    }


def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_file), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    tools: dict[str, Any] = {"Mark": Mark, "groups": _groups, "color": svg.color}
    environment.globals.update(tools)
    return environment


def _file(name: str) -> str:
    return (resources.files("avcil.incremental.report.formats") / name).read_text("utf-8")


def _groups(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """Return the groups of columns and their widths; nothing where there are no groups."""
    if not any(column.group for column in columns):
        return []
    return [(name, len(list(group))) for name, group in groupby(columns, lambda c: c.group)]


def _figures(found: Benchmark) -> list[Figure]:
    figures = [_lines("Accuracy after each task", curves.accuracy_curves(found), CLASSES, ACCURACY)]
    if len(found.sizes) > 1:
        forgetting = curves.forgetting_curves(found)
        figures.append(_lines("Forgetting after each task", forgetting, CLASSES, "forgetting, %"))
    for caption, points, cost in (
        ("Accuracy against training time", curves.time_points(found), "seconds"),
        ("Accuracy against memory", curves.memory_points(found), "exemplars"),
    ):
        if len({point.x for point in points}) > 1:
            drawing = svg.cloud(points, cost, "mean accuracy, %", _say_points(caption, points))
            legend = [(point.place, point.label) for point in points]
            figures.append(Figure(caption, drawing, legend))
    return figures


def _lines(
    caption: str, lines: Sequence[curves.Curve], x: str, y: str, starts: Sequence[float] = ()
) -> Figure:
    ends = "; ".join(f"{line.label} ends at {line.y[-1]:.2f}" for line in lines)
    drawing = svg.line_chart(lines, x, y, f"{caption}: {ends}", starts)
    return Figure(caption, drawing, [(i, line.label) for i, line in enumerate(lines)])


def _say_points(caption: str, points: Sequence[curves.Point]) -> str:
    words = "; ".join(f"{point.label} {point.y:.2f} at {point.x:.1f}" for point in points)
    return f"{caption}: {words}"


def _detail(row: Row) -> Detail:
    figures = [_accuracy_matrix(row)]
    losses, starts = curves.loss_curves(row.runs[0])
    if losses:
        kept = [curves.thin(curve, MOST_POINTS) for curve in losses]
        seed = row.runs[0].config["seed"]
        figures.append(
            _lines(f"Loss terms over epochs, seed {seed}", kept, "epoch", "loss", starts)
        )
    answers = curves.confusion(row)
    if answers:
        figures.append(_confusion(*answers))
    return Detail(row, [*figures, *_attention(row)])


def _attention(row: Row) -> Iterator[Figure]:
    """Yield pictures of the guided head's attention, where the first run kept some."""
    for found in kept_attention(row.runs[0].folder)[:MOST_PICTURES]:
        from avcil.incremental.report.figures import plots

        data = base64.b64encode(plots.png(plots.draw_attention(found))).decode()
        caption = f"Which sounds guided which frames: {found.clip}"
        said = f"{caption}, a clip of {found.label}, answered as {found.answer}"
        yield Figure(caption, f'<img src="data:image/png;base64,{data}" alt="{escape(said)}">')


def _accuracy_matrix(row: Row) -> Figure:
    values = curves.mean_matrix(row)
    names = [str(task + 1) for task in range(len(values))]
    caption = "Accuracy on each task (across) after each task (down), %"

    def tip(step: int, task: int) -> str:
        return f"after task {step + 1}, on task {task + 1}: {values[step][task]:.2f}"

    means = ", ".join(f"{statistics.fmean(line):.0f}" for line in values)
    said = f"{caption}; mean of each line: {means}"
    return Figure(caption, svg.matrix(values, [f"after {n}" for n in names], names, tip, said))


def _confusion(names: Sequence[str], counts: Sequence[Sequence[int]]) -> Figure:
    values = [[100 * n / (sum(line) or 1) for n in line] for line in counts]
    caption = "Answers (across) for the clips of each class (down) after the last task, %"

    def tip(true: int, answered: int) -> str:
        total = sum(counts[true])
        return f"{names[true]} answered as {names[answered]}: {counts[true][answered]} of {total}"

    numbers = [str(i + 1) for i in range(len(names))]
    right = statistics.fmean(line[i] for i, line in enumerate(values))
    said = f"{caption}; right on average: {right:.0f}"
    return Figure(caption, svg.matrix(values, numbers, numbers, tip, said))
