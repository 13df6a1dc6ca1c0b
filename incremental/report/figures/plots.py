"""Figures for papers: matplotlib, one style, colours that colour-blind readers tell apart.

Every function returns a figure that nobody shows or keeps; `save` writes it. Figures are 3.3 inches
wide, a column of most papers, with fonts as embedded outlines that editors can still edit.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avcil.incremental.errors import RunDamaged
from avcil.incremental.report.figures import curves
from avcil.incremental.report.rows import Benchmark, Row
from avcil.incremental.runs.attention import Attention, frames_at, kept_attention
from avcil.runtime.progress import log

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

COLORS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#333333", "#7b5bd6",
)  # fmt: skip
"""After Okabe and Ito, Color Universal Design, 2008; yellow and black made to print."""
MARKERS = "osD^vPX*"
STYLE: dict[Any, object] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "savefig.dpi": 300,
}
FRAMES = 10
"""Frames shown of a clip."""
COLUMN = 3.3
"""Width in inches."""
LEGEND_LINE = 0.16
"""Height of a line of the legend, inches."""
WORDS_UP_TO = 12
"""Most rows of a matrix whose cells are wide enough for figures."""


def figures(found: Benchmark) -> Iterator[tuple[str, Figure]]:
    """Yield every figure of a benchmark with a name for its file."""
    yield "accuracy", draw_curves(curves.accuracy_curves(found), "classes seen", "accuracy (%)")
    if len(found.sizes) > 1:
        lines = curves.forgetting_curves(found)
        yield "forgetting", draw_curves(lines, "classes seen", "forgetting (%)")
    yield "matrices", draw_matrices(found.rows)
    for name, points, cost in (
        ("time", curves.time_points(found), "training time (s)"),
        ("memory", curves.memory_points(found), "exemplars in memory"),
    ):
        if len({point.x for point in points}) > 1:
            yield name, draw_cloud(points, cost, "mean accuracy (%)")
    for place, row in enumerate(found.rows):
        yield from _row_figures(row, place)


def _row_figures(row: Row, place: int) -> Iterator[tuple[str, Figure]]:
    losses, starts = curves.loss_curves(row.runs[0])
    if losses:
        yield f"losses-{place}-{row.method}", draw_losses(losses, starts, row.label)
    answers = curves.confusion(row)
    if answers:
        yield f"confusion-{place}-{row.method}", draw_confusion(*answers, row.label)
    for number, kept in enumerate(kept_attention(row.runs[0].folder)):
        yield f"attention-{place}-{number}", draw_attention(kept)


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the path's suffix; the same figure gives the same bytes."""
    dates = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with _style():
        figure.savefig(path, bbox_inches="tight", metadata=dates.get(path.suffix))


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file for a screen."""
    page = io.BytesIO()
    with _style():
        figure.savefig(page, format="png", dpi=120, bbox_inches="tight")
    return page.getvalue()


def _style() -> AbstractContextManager[None]:
    import matplotlib

    return matplotlib.rc_context({**STYLE, "svg.hashsalt": "avcil"})


def _empty(
    width: float = COLUMN, height: float = 2.2, legend: Sequence[str] = ()
) -> tuple[Figure, Axes]:
    """Return a figure with axes; not pyplot's, which would keep it alive and want a display.

    Args:
        width: inches.
        height: inches, to which the lines of a legend are added.
        legend: its entries.
    """
    from matplotlib.figure import Figure

    lines = -(-len(legend) // _legend_columns(legend)) if legend else 0
    figure = Figure(figsize=(width, height + LEGEND_LINE * lines), layout="constrained")
    return figure, figure.subplots()


def _legend_columns(labels: Sequence[str]) -> int:
    return 1 if max(map(len, labels)) > 24 else min(len(labels), 3)


def draw_curves(lines: Sequence[curves.Curve], x_title: str, y_title: str) -> Figure:
    """Draw curves over tasks with bands of one deviation."""
    with _style():
        figure, axes = _empty(legend=[line.label for line in lines])
        for place, line in enumerate(lines):
            color = COLORS[place % len(COLORS)]
            axes.plot(line.x, line.y, color=color, marker=MARKERS[place % 8], label=line.label)
            low = [y - d for y, d in zip(line.y, line.deviation, strict=True)]
            high = [y + d for y, d in zip(line.y, line.deviation, strict=True)]
            axes.fill_between(line.x, low, high, color=color, alpha=0.15, linewidth=0)
        axes.set(xlabel=x_title, ylabel=y_title, xticks=lines[0].x)
        _legend(figure, axes)
    return figure


def _legend(figure: Figure, axes: Axes) -> None:
    """Put the legend below, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    columns = _legend_columns(labels)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def draw_cloud(points: Sequence[curves.Point], x_title: str, y_title: str) -> Figure:
    """Draw accuracy against a cost, with the front that no other point beats."""
    with _style():
        figure, axes = _empty(legend=[point.label for point in points])
        front = curves.pareto_front(points)
        axes.step([p.x for p in front], [p.y for p in front], where="post", color="#888888", lw=0.8)
        for point in points:
            axes.errorbar(
                point.x, point.y, yerr=point.deviation or None, clip_on=False,
                color=COLORS[point.place % len(COLORS)], marker=MARKERS[point.place % 8],
                markersize=5, linestyle="none", label=point.label,
            )  # fmt: skip
        axes.set(xlabel=x_title, ylabel=y_title)
        axes.set_xlim(left=0)
        _legend(figure, axes)
    return figure


def draw_matrices(rows: Sequence[Row]) -> Figure:
    """Draw the accuracy matrix of every row, mean over its runs: where does it forget?"""
    from matplotlib.figure import Figure

    across = min(len(rows), 3)
    down = -(-len(rows) // across)
    with _style():
        figure = Figure(figsize=(2.3 * across, 2.4 * down), layout="constrained")
        panels = figure.subplots(down, across, squeeze=False).flatten()
        for axes, row in zip(panels, rows, strict=False):
            _shade(axes, curves.mean_matrix(row), row.label)
            axes.set(xlabel="accuracy on task (%)", ylabel="after task")
        for axes in panels[len(rows) :]:
            axes.set_axis_off()
    return figure


def _shade(axes: Axes, values: Sequence[Sequence[float]], title: str) -> None:
    """Draw rows of figures in [0, 100], which may grow in length, as shaded cells."""
    import numpy as np

    size = len(values)
    grid = np.full((size, max(map(len, values))), np.nan)
    for i, row in enumerate(values):
        grid[i, : len(row)] = row
    axes.imshow(grid, cmap="Blues", vmin=0, vmax=100)
    axes.set_title(title, fontsize=8)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    if size > WORDS_UP_TO:
        return
    names = [str(i + 1) for i in range(size)]
    axes.set_xticks(range(size), names)
    axes.set_yticks(range(size), names)
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            ink = "white" if value > 60 else "black"
            axes.text(j, i, f"{value:.0f}", ha="center", va="center", color=ink, fontsize=7)


def draw_losses(lines: Sequence[curves.Curve], starts: Sequence[float], title: str) -> Figure:
    """Draw every loss term over the epochs of all tasks; lines across mark where a task begins."""
    with _style():
        figure, axes = _empty(legend=[line.label for line in lines])
        for place, line in enumerate(lines):
            color = COLORS[place % len(COLORS)]
            for number, (x, y) in enumerate(curves.pieces(line, starts)):
                axes.plot(x, y, color=color, label=None if number else line.label)
        for start in starts[1:]:
            axes.axvline(start, color="#999999", linewidth=0.6, linestyle=":")
        axes.set(xlabel="epoch, all tasks", ylabel="loss", title=title)
        axes.title.set_fontsize(8)
        _legend(figure, axes)
    return figure


def draw_confusion(names: Sequence[str], counts: Sequence[Sequence[int]], title: str) -> Figure:
    """Draw how the clips of each class were answered after the last task."""
    values = [[100 * n / (sum(row) or 1) for n in row] for row in counts]
    size = COLUMN + 0.03 * len(names)
    with _style():
        figure, axes = _empty(size, size)
        _shade(axes, values, title)
        if len(names) <= 30:
            axes.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
            axes.set_yticks(range(len(names)), names, fontsize=6)
        axes.set(xlabel="answered (% of the class)", ylabel="class, in learning order")
    return figure


def draw_attention(attention: Attention) -> Figure:
    """Draw which sounds guided which frames, with the frames where the clip is on disk."""
    from matplotlib.figure import Figure

    weights, seconds = attention.weights, attention.duration_s
    with _style():
        figure = Figure(figsize=(2 * COLUMN, 3.2), layout="constrained")
        strip, axes, share = figure.subplots(3, 1, height_ratios=(1.1, 2, 0.7))
        _strip(strip, _pictures(attention), seconds)
        extent = (0.0, seconds, weights.shape[1] / attention.audio_hz, 0.0)
        axes.imshow(weights.T, aspect="auto", cmap="magma", extent=extent, interpolation="nearest")
        axes.set(ylabel="guiding sound at (s)", xlim=(0, seconds), xticklabels=[])
        axes.grid(visible=False)
        _focus(share, attention)
        answer = "rightly" if attention.answer == attention.label else f"as {attention.answer}"
        figure.suptitle(f"{attention.clip}: {attention.label}, answered {answer}", fontsize=8)
    return figure


def _pictures(attention: Attention) -> list[NDArray[np.uint8]]:
    """Return frames of the clip at even times; none where it is gone or cannot be decoded."""
    if attention.video is None:
        return []
    times = [attention.duration_s * (i + 0.5) / FRAMES for i in range(FRAMES)]
    try:
        return frames_at(attention.video, times)
    except RunDamaged as problem:
        log(f"no frames beside the attention: {problem}")
        return []


def _strip(axes: Axes, pictures: Sequence[NDArray[np.uint8]], seconds: float) -> None:
    """Show frames side by side over their time."""
    axes.set_axis_off()
    axes.set(xlim=(0, seconds), ylim=(0, 1))
    width = seconds / FRAMES
    for place, picture in enumerate(pictures):
        extent = (place * width, (place + 0.97) * width, 0.0, 1.0)
        axes.imshow(picture, extent=extent, aspect="auto")
    axes.set(xlim=(0, seconds), ylim=(0, 1))


def _focus(axes: Axes, attention: Attention) -> None:
    """Show how far each frame listens to few sounds rather than to all alike."""
    import numpy as np

    weights = np.clip(attention.weights, 1e-12, None)
    entropy = -(weights * np.log(weights)).sum(axis=1) / np.log(max(2, weights.shape[1]))
    times = (np.arange(len(entropy)) + 0.5) / attention.visual_hz
    axes.plot(times, 1 - entropy, color=COLORS[0])
    axes.set(xlabel="frame at (s)", ylabel="focus", xlim=(0, attention.duration_s), ylim=(0, None))
