"""What figures show, before it is drawn: curves over tasks, matrices, clouds of points.

Everything is in per cent, as in tables.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from avcil.incremental.errors import RunDamaged
from avcil.incremental.report.rows import Benchmark, Row
from avcil.incremental.runs.results import AccuracyMatrix, Run, read_metrics
from avcil.runtime.progress import log


@dataclass(frozen=True, slots=True)
class Curve:
    """A line with a band of one sample deviation to both sides; no width for a single run."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    deviation: Sequence[float]


@dataclass(frozen=True, slots=True)
class Point:
    """A row in a cloud: what it costs and how good it is."""

    label: str
    x: float
    y: float
    deviation: float
    place: int
    """Of the row in its benchmark, so that it keeps its colour in every figure."""


def accuracy_curves(found: Benchmark) -> list[Curve]:
    """Return the accuracy on all classes seen, over the number of classes seen."""
    seen = [float(count) for count in accumulate(found.sizes)]
    return [_curve(row, seen, lambda matrix: matrix.by_step) for row in found.rows]


def forgetting_curves(found: Benchmark) -> list[Curve]:
    """Return the forgetting after each task but the first, over the number of classes seen."""
    seen = [float(count) for count in accumulate(found.sizes)][1:]
    return [_curve(row, seen, lambda matrix: matrix.forgetting_by_step) for row in found.rows]


def _curve(
    row: Row, x: Sequence[float], values: Callable[[AccuracyMatrix], Sequence[float]]
) -> Curve:
    steps = zip(*(values(run.results.matrix) for run in row.runs), strict=True)
    columns = [[100 * value for value in column] for column in steps]
    return Curve(
        row.label,
        x,
        [statistics.fmean(column) for column in columns],
        [_deviation(column) for column in columns],
    )


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
    return [
        _point(place, row, statistics.fmean(sum(run.results.seconds) for run in row.runs))
        for place, row in enumerate(found.rows)
    ]


def memory_points(found: Benchmark) -> list[Point]:
    """Return mean accuracy over exemplars: the most that the memory held, not its limit.

    Without the upper bound, which needs no memory because it keeps everything.
    """
    return [
        _point(place, row, statistics.fmean(_held(run) for run in row.runs))
        for place, row in enumerate(found.rows)
        if row.competes
    ]


def _held(run: Run) -> int:
    return max((len(ids) for ids in run.results.exemplars), default=0)


def _point(place: int, row: Row, x: float) -> Point:
    return Point(row.label, x, row.accuracy.mean, row.accuracy.deviation or 0.0, place)


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
    if not (run.folder / "metrics.jsonl").exists():
        return [], []  # methods in closed form have no epochs
    try:
        epochs = read_metrics(run.folder)
    except RunDamaged as problem:
        log(f"no loss curves: {problem}")
        return [], []
    terms: dict[str, list[tuple[float, float]]] = defaultdict(list)
    starts = [float(i) for i, epoch in enumerate(epochs) if epoch.epoch == 0]
    for number, epoch in enumerate(epochs):
        for term, value in epoch.losses.items():
            terms[term].append((float(number), value))
    curves = [
        Curve(term, [x for x, _ in line], [y for _, y in line], [0.0] * len(line))
        for term, line in sorted(terms.items())
    ]
    return curves, starts


def confusion(row: Row) -> tuple[list[str], list[list[int]]] | None:
    """Return class names and counts [true][answered] summed over runs of one class order.

    Returns:
        None where no run of the row counted them.
    """
    counted = [run for run in row.runs if run.results.confusion]
    if not counted:
        return None
    names = [name for task in counted[0].results.tasks for name in task]
    same = [run.results for run in counted if run.results.tasks == counted[0].results.tasks]
    tables = [results.confusion for results in same]
    size = range(len(names))
    return names, [[sum(table[i][j] for table in tables) for j in size] for i in size]


def thin(curve: Curve, most: int) -> Curve:
    """Return at most `most` points of a curve, evenly chosen, the last one always."""
    if len(curve.x) <= most:
        return curve
    places = [round(i * (len(curve.x) - 1) / (most - 1)) for i in range(most)]
    return Curve(
        curve.label,
        *([values[i] for i in places] for values in (curve.x, curve.y, curve.deviation)),
    )


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
