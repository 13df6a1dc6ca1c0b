"""What happens to single tasks and single classes while others are learned."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from avcil.incremental.report.figures import curves
from avcil.incremental.report.figures.canvas import WIDTHS, Size, drawing, empty, legend
from avcil.incremental.report.figures.style import LIGHT
from avcil.incremental.report.figures.text import class_names, literal, shortened
from avcil.incremental.report.rows import Benchmark, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES_UP_TO = 60
"""Most classes that are named on the axis."""


def draw_tasks(found: Benchmark, size: Size = "column") -> Figure:
    """Draw, for each row, the test accuracy on each task while later tasks are learned."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows, tasks = found.rows, len(found.sizes)
    across = min(len(rows), {"column": 3, "page": 5}[size])
    down, panel = -(-len(rows) // across), WIDTHS[size] / across
    labels = [shortened(literal(row.label), int(panel / 0.065)) for row in rows]
    colors = matplotlib.colormaps["viridis"]
    shades = [colors(0.9 * task / max(1, tasks - 1)) for task in range(tasks)]
    with drawing(labels):
        figure = Figure(figsize=(WIDTHS[size], 0.95 * panel * down + 0.6), layout="constrained")
        panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).flatten()
        for axes, row, label in zip(panels, rows, labels, strict=False):
            values = curves.mean_matrix(row)
            for task, shade in enumerate(shades):
                line = [values[step][task] for step in range(task, tasks)]
                axes.plot(range(task + 1, tasks + 1), line, color=shade, marker=".", lw=1)
            axes.set_title(label, fontsize=7)
            axes.set(ylim=(-3, 103))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.tick_params(labelsize=6, length=2)
        for axes in panels[len(rows) :]:
            axes.set_axis_off()
        figure.supylabel("test accuracy on a task (%), higher is better", fontsize=7)
        _task_bar(figure, list(panels), tasks)
    return figure


def _task_bar(figure: Figure, panels: Sequence[Axes], tasks: int) -> None:
    """Say which colour is which task."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize
    from matplotlib.ticker import MaxNLocator

    colors = ListedColormap(matplotlib.colormaps["viridis"]([0.9 * i / 255 for i in range(256)]))
    scale = ScalarMappable(Normalize(1, max(2, tasks)), colors)
    bar = figure.colorbar(scale, ax=panels, location="bottom", aspect=40, fraction=0.04, pad=0.02)
    bar.set_label("after task (across); colours: the task tested", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    bar.ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    bar.outline.set_visible(False)


def draw_class_forgetting(
    row: Row, answers: tuple[Sequence[str], Sequence[Sequence[int]]], size: Size = "column"
) -> Figure:
    """Draw the accuracy of every class after the last task beside its task's when learned.

    Runs keep counts by class after the last task only, so the earlier accuracy is that of the
    class's whole task. The gap is what the class forgot, up to how classes of a task differ.
    """
    names, counts = answers
    final = [100 * line[i] / (sum(line) or 1) for i, line in enumerate(counts)]
    learned = _accuracy_when_learned(row)
    short, title = class_names(names, 24), shortened(literal(row.label), 50)
    labels = ["its task, when learned", "the class, after the last task"]
    height = 1.0 + 0.13 * min(len(names), NAMES_UP_TO)
    with drawing([*short, title]):
        figure, axes = empty(size, labels, height=height)
        places = range(len(names))
        axes.hlines(places, final, learned, color="#999999", linewidth=0.8)
        axes.plot(learned, places, "o", mfc="white", mec=LIGHT[2], ms=3.5, label=labels[0])
        axes.plot(final, places, "o", color=LIGHT[3], ms=3.5, label=labels[1])
        if len(names) <= NAMES_UP_TO:
            axes.set_yticks(places, short, fontsize=6)
        axes.set(xlabel="test accuracy (%), higher is better", title=title, xlim=(-3, 103))
        axes.set_ylim(len(names) - 0.5, -0.5)
        legend(figure, axes)
    return figure


def _accuracy_when_learned(row: Row) -> list[float]:
    """Return for each class the accuracy on its task right after that task.

    Mean over the runs of which `curves.confusion` counts the answers.
    """
    runs = curves.counted_runs(row)
    diagonals = [[line[-1] for line in run.results.matrix.by_task] for run in runs]
    means = [100 * statistics.fmean(column) for column in zip(*diagonals, strict=True)]
    sizes = [len(task) for task in runs[0].results.tasks]
    return [mean for mean, size in zip(means, sizes, strict=True) for _ in range(size)]
