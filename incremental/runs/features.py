"""Features of some test clips: how far later tasks have moved them.

A run folder holds `features/task-<t>.npz`, written at the test of task t with the clips whose
classes are new in it, and `features/last.npz` with all of them after the last task:

    position    [N] place of each clip's class in learning order
    features    [N, D] the head's features, of norm one
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avcil.incremental.errors import RunDamaged
from avcil.incremental.runs.attention import UNREADABLE
from avcil.runtime.files import replace_file
from avcil.runtime.progress import log

Features = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Positions [N] and features [N, D]."""


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """Features of the same N test clips at two moments."""

    positions: NDArray[np.int64]  # [N]
    when_learned: NDArray[np.float32]  # [N, D]
    """After the task of each clip's class."""
    at_the_end: NDArray[np.float32]  # [N, D]
    """After the last task."""


def write_features(folder: Path, task: int | None, kept: Features) -> None:
    """Write the features of clips into a run folder, after a task or (None) after the last."""
    content = io.BytesIO()
    np.savez(content, position=kept[0], features=kept[1].astype(np.float16))
    path = _path(folder, task)
    path.parent.mkdir(exist_ok=True)
    replace_file(path, content.getbuffer())


def copy_features(source: Path, target: Path, tasks: int, clips: int) -> None:
    """Copy the features of finished tasks to the run that continues them, if there are any.

    Args:
        source: folder of the finished run.
        target: folder of the other run.
        tasks: number of finished tasks.
        clips: number of clips of each class that the other run keeps.
    """
    for task in range(tasks if _path(source, None).exists() else 0):
        positions, features = _read(_path(source, task))
        places = [np.flatnonzero(positions == each)[:clips] for each in np.unique(positions)]
        chosen = np.concatenate(places)
        write_features(target, task, (positions[chosen], features[chosen]))


def kept_features(folder: Path, tasks: int) -> FeatureDrift | None:
    """Return what a run folder holds; None unless it has all files. Damaged ones are logged."""
    if not all(_path(folder, task).exists() for task in (None, *range(tasks))):
        return None
    try:
        parts = [_read(_path(folder, task)) for task in range(tasks)]
        positions, last = _read(_path(folder, None))
        same_clips = np.array_equal(positions, np.concatenate([place for place, _ in parts]))
        if not same_clips or {each.shape[1] for _, each in parts} != {last.shape[1]}:
            raise RunDamaged(f"{folder / 'features'}: files of different clips or heads")
    except RunDamaged as problem:
        log(f"left out: {problem}")
        return None
    return FeatureDrift(positions, np.concatenate([features for _, features in parts]), last)


def _read(path: Path) -> Features:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            positions = stored["position"].astype(np.int64)
            features = stored["features"].astype(np.float32)
    except UNREADABLE as error:
        raise RunDamaged(f"{path} is not a file of features: {error!r}") from error
    if features.ndim != 2 or positions.shape != features.shape[:1]:
        raise RunDamaged(f"{path}: one position and one row of features for each clip")
    if not np.isfinite(features).all():
        raise RunDamaged(f"{path}: features must be finite")
    return positions, features


def _path(folder: Path, task: int | None) -> Path:
    return folder / "features" / ("last.npz" if task is None else f"task-{task}.npz")
