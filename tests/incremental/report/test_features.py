"""The figure of features: where test clips lie when their classes were learned, and at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from avcil.incremental.report.figures.features import draw_features, drift_to_draw
from avcil.incremental.report.rows import Row
from avcil.incremental.report.select import benchmarks, gather
from avcil.incremental.runs.features import write_features

MakeRun = Callable[..., Path]


def write_drift(folder: Path, tasks: int = 5, clips: int = 4, moves: bool = True) -> None:
    """Write features of which the classes lie apart at the end, for two classes a task."""
    chance, positions = np.random.default_rng(0), np.arange(2 * tasks).repeat(clips)
    features = np.eye(2 * tasks, dtype=np.float32)[positions]
    features = features + moves * 0.1 * chance.normal(size=features.shape).astype(np.float32)
    for task in range(tasks):
        chosen = positions // 2 == task
        write_features(folder, task, (positions[chosen], moves * features[chosen]))
    write_features(folder, None, (positions, moves * features))


def row_of(root: Path) -> Row:
    return benchmarks(gather([root]).runs)[0][0].rows[0]


def test_clips_of_a_class_lie_together_at_both_moments(make_run: MakeRun, tmp_path: Path) -> None:
    write_drift(make_run(tasks=2), tasks=2)
    drift = drift_to_draw(row_of(tmp_path))
    assert drift is not None
    figure = draw_features(drift, "guided")
    for axes in figure.axes[:2]:
        points = np.asarray(axes.collections[0].get_offsets())
        middles = np.stack([points[drift.positions == place].mean(0) for place in range(4)])
        nearest = np.linalg.norm(points[:, None] - middles, axis=2).argmin(1)
        assert nearest.tolist() == drift.positions.tolist()


@pytest.mark.parametrize(("tasks", "clips", "moves"), [(5, 4, False), (3, 1, True)])
def test_features_that_are_few_or_all_the_same_are_not_drawn(
    make_run: MakeRun, tmp_path: Path, tasks: int, clips: int, moves: bool
) -> None:
    write_drift(make_run(tasks=tasks), tasks, clips, moves)
    assert drift_to_draw(row_of(tmp_path)) is None


def test_without_scikit_learn_the_missing_figure_is_said(
    make_run: MakeRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_drift(make_run())
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert drift_to_draw(row_of(tmp_path)) is None
    assert "avcil[tsne]" in capsys.readouterr().err.replace("\n", " ")
