"""What figures show, before it is drawn: curves over tasks, matrices, clouds of points.

Everything is in per cent, as in tables.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from avcil.incremental.errors import RunDamaged
from avcil.incremental.report.figures.style import Style, row_styles
from avcil.incremental.report.rows import Benchmark, Row
from avcil.incremental.runs.results import Epoch, Run, read_metrics
from avcil.runtime.progress import log


@dataclass(frozen=True, slots=True)
class Curve:
    """A line with a band of one standard deviation to both sides; no width for a single run."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    deviation: Sequence[float]
    style: Style | None = None
    """None for a series that is no row, such as a loss term."""
    place: int | None = None
    """Of the row in its benchmark: what the page's filter switches."""


@dataclass(frozen=True, slots=True)
class Point:
    """A row in a cloud: what it costs and how good it is."""

    label: str
    x: float
    y: float
    deviation: float
    place: int
    """Of the row in its benchmark: what the page's legend and filter switch."""
    style: Style | None = None
    x_deviation: float = 0.0


def accuracy_curves(found: Benchmark) -> list[Curve]:
    """Return the accuracy on all classes seen, over the number of classes seen."""
    return _over_classes(found, lambda run: run.results.matrix.by_step)


def forgetting_curves(found: Benchmark) -> list[Curve]:
    """Return the forgetting after each task but the first, over the number of classes seen."""
    return _over_classes(found, lambda run: run.results.matrix.forgetting_by_step, first=1)


def validation_curves(found: Benchmark) -> list[Curve]:
    """Return the validation accuracy on all classes seen, over the number of classes seen."""
    return _over_classes(found, lambda run: run.results.validation_accuracy)


def _over_classes(
    found: Benchmark, values: Callable[[Run], Sequence[float]], first: int = 0
) -> list[Curve]:
    """Return a curve for each row whose runs have a value after every task from `first` on."""
    seen = [float(count) for count in accumulate(found.sizes)][first:]
    lines = []
    styles = row_styles(found.rows)
    for place, (row, style) in enumerate(zip(found.rows, styles, strict=True)):
        columns = [[100 * v for v in step] for step in zip(*map(values, row.runs), strict=False)]
        if len(columns) == len(seen):
            means = [statistics.fmean(column) for column in columns]
            lines.append(
                Curve(row.label, seen, means, list(map(_deviation, columns)), style, place)
            )
    return lines


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def mean_matrix(row: Row) -> list[list[float]]:
    """Return [k][i], i <= k: accuracy on task i after task k, mean over runs."""
    steps = zip(*(run.results.matrix.by_task for run in row.runs), strict=True)
    return [
        [100 * statistics.fmean(column) for column in zip(*step, strict=True)] for step in steps
    ]


def time_points(found: Benchmark) -> list[Point]:
    """Return mean accuracy over training time in seconds, all tasks together."""
    return _points(found, lambda run: sum(run.results.seconds))


def memory_points(found: Benchmark) -> list[Point]:
    """Return mean accuracy over exemplars: the most that the memory held, not its limit.

    Without the upper bound, which needs no memory because it keeps everything.
    """
    points = _points(found, lambda run: max(map(len, run.results.exemplars), default=0))
    return [point for point in points if found.rows[point.place].competes]


def old_new_points(found: Benchmark) -> list[Point]:
    """Return accuracy on the classes of a new task over accuracy on all earlier classes.

    Both are measured after each task but the first, and averaged over those tasks, in per cent.
    """
    if len(found.sizes) == 1:
        return []
    return _points(found, lambda run: 100 * _old(run), lambda run: 100 * _new(run))


def _old(run: Run) -> float:
    counts, total = run.results.correct, run.results.total
    return statistics.fmean(sum(counts[k][:k]) / sum(total[:k]) for k in range(1, len(counts)))


def _new(run: Run) -> float:
    return statistics.fmean(row[-1] for row in run.results.matrix.by_task[1:])


def _points(
    found: Benchmark,
    cost: Callable[[Run], float],
    gain: Callable[[Run], float] = lambda run: 100 * run.results.matrix.mean_accuracy,
) -> list[Point]:
    points = []
    for place, (row, style) in enumerate(zip(found.rows, row_styles(found.rows), strict=True)):
        x, y = [[float(figure(run)) for run in row.runs] for figure in (cost, gain)]
        means = statistics.fmean(x), statistics.fmean(y)
        points.append(Point(row.label, *means, _deviation(y), place, style, _deviation(x)))
    return points


def pareto_front(points: Iterable[Point]) -> list[Point]:
    """Return the points that no other beats in cost and accuracy at once, cheapest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.x, -p.y)):
        if not front or point.y > front[-1].y:
            front.append(point)
    return front


def loss_curves(run: Run) -> tuple[list[Curve], list[float]]:
    """Return each loss term over all epochs of a run, and the epochs where a task begins.

    Values are as measured, not in per cent. Both lists are empty for a run without metrics.
    """
    return _over_epochs(run, lambda epoch: epoch.losses)


def validation_by_epoch(run: Run) -> tuple[list[Curve], list[float]]:
    """Return the validation accuracy over all epochs of a run, and where a task begins."""
    return _over_epochs(
        run,
        lambda epoch: (
            {}
            if epoch.validation_accuracy is None
            else {"validation accuracy": 100 * epoch.validation_accuracy}
        ),
    )


def _over_epochs(
    run: Run, values: Callable[[Epoch], Mapping[str, float]]
) -> tuple[list[Curve], list[float]]:
    if not (run.folder / "metrics.jsonl").exists():
        return [], []  # methods in closed form have no epochs
    try:
        epochs = read_metrics(run.folder)
    except RunDamaged as problem:
        log(f"no curves over epochs: {problem}")
        return [], []
    terms: dict[str, list[tuple[float, float]]] = defaultdict(list)
    starts = [float(i) for i, epoch in enumerate(epochs) if epoch.epoch == 0]
    for number, epoch in enumerate(epochs):
        for term, value in values(epoch).items():
            terms[term].append((float(number), value))
    curves = [
        Curve(term, [x for x, _ in line], [y for _, y in line], [0.0] * len(line))
        for term, line in sorted(terms.items())
    ]
    return curves, starts


def counted_runs(row: Row) -> list[Run]:
    """Return the runs that counted which classes were predicted, those of one class order."""
    counted = [run for run in row.runs if run.results.confusion]
    return [run for run in counted if run.results.tasks == counted[0].results.tasks]


def confusion(row: Row) -> tuple[list[str], list[list[int]]] | None:
    """Return class names and counts [true][predicted], summed over runs of one class order.

    Returns:
        None where no run of the row counted them.
    """
    tables = [run.results.confusion for run in counted_runs(row)]
    if not tables:
        return None
    names = [name for task in counted_runs(row)[0].results.tasks for name in task]
    return names, [list(map(sum, zip(*lines, strict=True))) for lines in zip(*tables, strict=True)]


def thin(curve: Curve, most: int) -> Curve:
    """Return at most `most` points of a curve, evenly chosen, the last one always."""
    if len(curve.x) <= most:
        return curve
    places = [round(i * (len(curve.x) - 1) / (most - 1)) for i in range(most)]
    x, y, deviation = (
        [values[i] for i in places] for values in (curve.x, curve.y, curve.deviation)
    )
    return replace(curve, x=x, y=y, deviation=deviation)


def pieces(curve: Curve, starts: Sequence[float]) -> list[tuple[list[float], list[float]]]:
    """Return the x and y of a curve, cut before each start: tasks do not run into each other."""
    cuts = [start for start in starts if start > curve.x[0]]
    found: list[tuple[list[float], list[float]]] = [([], [])]
    for x, y in zip(curve.x, curve.y, strict=True):
        if cuts and x >= cuts[0]:
            cuts.pop(0)
            found.append(([], []))
        found[-1][0].append(x)
        found[-1][1].append(y)
    return found


def marked(point: Point) -> Point:
    """Return a point whose label ends in a star, which a note explains."""
    return replace(point, label=f"{point.label} *")
