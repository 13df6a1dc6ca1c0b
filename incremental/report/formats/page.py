"""The report as one HTML file: no network, no server, light and dark, pointer and keyboard."""

from __future__ import annotations

import base64
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from itertools import groupby
from typing import TYPE_CHECKING, Any

from avcil.incremental.report.figures import curves, svg
from avcil.incremental.report.figures.clock import trained_together
from avcil.incremental.report.figures.style import DARK, LIGHT, Style, row_styles, series_style
from avcil.incremental.report.figures.sweeps import sweep_curves
from avcil.incremental.report.labels import told_apart
from avcil.incremental.report.rows import Benchmark, Row
from avcil.incremental.report.tables.table import NOTHING, Column, Mark, Table
from avcil.incremental.runs.attention import kept_attention

if TYPE_CHECKING:
    from jinja2 import Environment

MOST_POINTS = 240
"""Points kept of a loss curve: a line of that many cannot be told from more."""
PICTURES = ((12, 2), (40, 1))
"""Most rows of a page, and pictures of attention of each; a picture takes about 40 KB."""
SEEN, ACCURACY = "classes seen", "accuracy, % (higher is better)"


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing with its caption and, where it has series, their names for the legend."""

    caption: str
    drawing: str
    legend: Sequence[tuple[int, str, Style]] = ()
    """Series with their names and styles."""
    note: str = ""


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
    ordered = sorted(sections, key=lambda section: -max(len(r.runs) for r in section[0].rows))
    titles = _titles([found for found, _ in ordered])
    rows = sum(len(found.rows) for found, _ in sections)
    pictures = next((each for most, each in PICTURES if rows <= most), 0)
    shown = [
        _section(found, tables, title, pictures)
        for (found, tables), title in zip(ordered, titles, strict=True)
    ]
    shorts = told_apart([table.short for table in across], [f"({t.title})" for t in across])
    text = (
        _environment()
        .get_template("page.html.j2")
        .render(
            sections=shown,
            across=list(zip(shorts, across, strict=True)),
            random=sorted({cache.encoder for cache in caches if cache.random_weights}),
            style=_file("page.css") + _colors(),
            script=_file("page.js"),
        )
    )
    return text.encode("utf-8", "backslashreplace").decode()  # half of a surrogate pair


def _titles(found: Sequence[Benchmark]) -> list[str]:
    """Return a headline for each benchmark: data set, encoder, tasks, and more where needed."""
    names = []
    for each in found:
        random = " with random weights" if each.cache.random_weights else ""
        name = f"{each.cache.dataset}, encoder {each.cache.encoder}{random}"
        names.append(f"{name}: {each.protocol}")
    clips = [f", {each.clips}" if each.clips else "" for each in found]
    caches = [f", cache {each.cache.fingerprint[:12]}" for each in found]
    return [name.replace(" , ", ", ") for name in told_apart(names, clips, caches)]


def _colors() -> str:
    """Return the colours of series as variables of the style sheet."""
    themes = {":root": LIGHT, ':root[data-theme="dark"]': DARK}
    return "".join(
        f"{theme} {{ {' '.join(f'--s{i}: {c};' for i, c in enumerate(colors))} }}\n"
        for theme, colors in themes.items()
    )


def _section(
    found: Benchmark, tables: Sequence[Table], title: str, pictures: int
) -> dict[str, Any]:
    names: dict[tuple[str, ...], int] = {}
    return {
        "title": title,
        "cache": found.cache,
        "overview": tables[0],
        "tables": tables[1:],
        "styles": row_styles(found.rows),
        "figures": _figures(found),
        "details": [_detail(row, names, pictures) for row in found.rows],
        "names": list(names),
    }


def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_file), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    tools: dict[str, Any] = {
        "Mark": Mark, "groups": _groups, "look": svg.look, "sample": svg.sample,
        "percent": _percent,
    }  # fmt: skip
    environment.globals.update(tools)
    return environment


def _file(name: str) -> str:
    return (resources.files("avcil.incremental.report.formats") / name).read_text("utf-8")


def _groups(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """Return the groups of columns and their widths; nothing where there are no groups."""
    if not any(column.group for column in columns):
        return []
    return [(name, len(list(group))) for name, group in groupby(columns, lambda c: c.group)]


def _percent(value: float) -> str:
    """Return a fraction in per cent; a dash for what does not exist, as forgetting of one task."""
    return NOTHING if math.isnan(value) else f"{100 * value:.2f}"


def _figures(found: Benchmark) -> list[Figure]:
    figures = [_lines("Accuracy after each task", curves.accuracy_curves(found), SEEN, ACCURACY)]
    if len(found.sizes) > 1:
        y = "forgetting, % (lower is better)"
        figures.append(
            _lines("Forgetting after each task", curves.forgetting_curves(found), SEEN, y)
        )
    validation = curves.validation_curves(found)
    if validation:
        caption = "Validation accuracy after each task"
        figures.append(_lines(caption, validation, SEEN, f"validation {ACCURACY}"))
    points = curves.old_new_points(found)
    if points:
        axes = "accuracy on earlier classes, %", "accuracy on new classes, %"
        figures.append(_cloud("New against earlier classes", points, *axes, costs=False))
    for caption, costs, cost, note in (
        ("Accuracy against training time", curves.time_points(found), "seconds", _times(found)),
        ("Accuracy against memory", curves.memory_points(found), "exemplars", ""),
    ):
        if len({point.x for point in costs}) > 1:
            figures.append(_cloud(caption, costs, cost, f"mean {ACCURACY}", note=note))
    for setting, lines in sweep_curves(found).items():
        figures.append(_lines(f"Accuracy over {setting}", lines, setting, f"mean {ACCURACY}"))
    return figures


def _times(found: Benchmark) -> str:
    """Say which times do not compare."""
    together = trained_together(found.rows)
    if all(together):
        return "These runs were trained at the same time as others: their times do not compare."
    rows = [row.label for row, shared in zip(found.rows, together, strict=True) if shared]
    if rows:
        return f"Trained at the same time as others, so not comparable: {'; '.join(rows)}."
    return "Times compare between runs that ran alone on the same machine."


def _lines(
    caption: str, lines: Sequence[curves.Curve], x: str, y: str, starts: Sequence[float] = ()
) -> Figure:
    ends = "; ".join(f"{line.label} ends at {line.y[-1]:.2f}" for line in lines)
    drawing = svg.line_chart(lines, x, y, f"{caption}: {ends}", starts)
    legend = [(i, line.label, line.style or series_style(i)) for i, line in enumerate(lines)]
    bands = any(any(line.deviation) for line in lines)
    return Figure(caption, drawing, legend, "Bands: ± one standard deviation." if bands else "")


def _cloud(
    caption: str,
    points: Sequence[curves.Point],
    x: str,
    y: str,
    *,
    costs: bool = True,
    note: str = "",
) -> Figure:
    words = "; ".join(f"{point.label} {point.y:.2f} at {point.x:.1f}" for point in points)
    drawing = svg.cloud(points, x, y, f"{caption}: {words}", costs=costs)
    legend = [(p.place, p.label, p.style or series_style(p.place)) for p in points]
    bars = "Bars: ± one standard deviation." if any(p.deviation for p in points) else ""
    return Figure(caption, drawing, legend, f"{bars} {note}".strip())


def _detail(row: Row, names: dict[tuple[str, ...], int], pictures: int) -> Detail:
    """Return what a row opens; class names that its matrices need are added to `names`."""
    figures = [_accuracy_matrix(row)]
    seed = row.runs[0].config["seed"]
    for caption, y, (lines, starts) in (
        ("Loss terms", "loss", curves.loss_curves(row.runs[0])),
        ("Validation accuracy", ACCURACY, curves.validation_by_epoch(row.runs[0])),
    ):
        if lines:
            kept = [curves.thin(curve, MOST_POINTS) for curve in lines]
            figures.append(_lines(f"{caption} over epochs, seed {seed}", kept, "epoch", y, starts))
    answers = curves.confusion(row)
    if answers:
        figures.append(_confusion(*answers, names))
    return Detail(row, [*figures, *_attention(row, pictures)])


def _attention(row: Row, most: int) -> Iterator[Figure]:
    """Yield pictures of the guided head's attention, where the first run kept some."""
    for found in kept_attention(row.runs[0].folder)[:most]:
        from avcil.incremental.report.figures.attention import draw_attention
        from avcil.incremental.report.figures.canvas import webp

        data = base64.b64encode(webp(draw_attention(found, "page"))).decode()
        caption = f"Which sounds guided which frames: {found.clip}"
        said = f"{caption}, a clip of {found.label}, classified as {found.answer}"
        yield Figure(caption, f'<img src="data:image/webp;base64,{data}" alt="{escape(said)}">')


def _accuracy_matrix(row: Row) -> Figure:
    values = curves.mean_matrix(row)
    caption = "Accuracy on each task (across) after each task (down), %"
    means = ", ".join(f"{statistics.fmean(line):.0f}" for line in values)
    said = f"{caption}; mean of each line: {means}"
    if len(values) > svg.WORDS_UP_TO:
        return Figure(caption, _canvas(values, said))

    def tip(step: int, task: int) -> str:
        return f"after task {step + 1}, on task {task + 1}: {values[step][task]:.2f}"

    names = [str(task + 1) for task in range(len(values))]
    return Figure(caption, svg.matrix(values, [f"after {n}" for n in names], names, tip, said))


def _confusion(
    names: Sequence[str], counts: Sequence[Sequence[int]], known: dict[tuple[str, ...], int]
) -> Figure:
    values = [[100 * n / (sum(line) or 1) for n in line] for line in counts]
    caption = "Predicted class (across) for the clips of each class (down) after the last task, %"
    correct = statistics.fmean(line[i] for i, line in enumerate(values))
    said = f"{caption}; correct on average: {correct:.0f}"
    if len(names) > svg.WORDS_UP_TO:
        place = known.setdefault(tuple(names), len(known))
        totals = ",".join(str(sum(line)) for line in counts)
        return Figure(
            caption, _canvas(values, said, f'data-names="{place}" data-totals="{totals}"')
        )

    def tip(true: int, answered: int) -> str:
        total = sum(counts[true])
        return f"{names[true]} classified as {names[answered]}: {counts[true][answered]} of {total}"

    return Figure(caption, svg.matrix(values, names, names, tip, said))


def _canvas(values: Sequence[Sequence[float]], said: str, more: str = "") -> str:
    """Return a matrix as one picture that the page's script draws."""
    return (
        f'<canvas class="matrix" tabindex="0" role="img" aria-label="{escape(said)}" '
        f'data-size="{len(values)}" data-cells="{svg.packed(values)}" {more}></canvas>'
    )
