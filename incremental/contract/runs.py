"""Checks about the run folders of a method."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from avcil.cache.reader import FeatureStore
from avcil.checks import Broken
from avcil.incremental.data.clips import Replay
from avcil.incremental.runs.results import Epoch, read_metrics, read_run, write_results

PER_TASK = ("correct", "validation_accuracy", "best_epochs", "exemplars", "seconds")
"""Lists of `Results` with an entry for each finished task."""


def last_epochs(folder: Path) -> list[Epoch]:
    """Return what the epochs of the last task measured."""
    last = len(read_run(folder).results.tasks) - 1
    return [epoch for epoch in read_metrics(folder) if epoch.task == last]


def loss_falls(folder: Path, weights: Mapping[str, float]) -> None:
    """Check that training lowers the loss of the last task, where every term takes part."""
    first, *_, last = (
        sum(weights[name] * value for name, value in epoch.losses.items())
        for epoch in last_epochs(folder)
    )
    if not last < first:
        raise Broken(
            f"the loss does not fall: it is {first:.4g} in the first epoch of the last task and "
            f"{last:.4g} in the last one"
        )


def terms_take_part(folder: Path, terms: Iterable[str]) -> None:
    """Check that each declared term is computed in the last task, and is finite."""
    losses = last_epochs(folder)[-1].losses
    if missing := sorted(set(terms) - set(losses)):
        raise Broken(
            f"`loss` never returns the terms {', '.join(missing)}, which the class attribute "
            "`terms` has"
        )
    if undeclared := sorted(set(losses) - set(terms)):
        raise Broken(f"`loss` returns {', '.join(undeclared)}, which `terms` does not have")
    if infinite := sorted(name for name, value in losses.items() if not math.isfinite(value)):
        raise Broken(f"the terms {', '.join(infinite)} are infinite or NaN")


def same_run(first: Path, second: Path, otherwise: str) -> None:
    """Check that two runs have the same weights, bit for bit, and the same accuracy matrix."""
    results, others = (read_run(folder).results for folder in (first, second))
    for task in range(len(results.tasks)):
        name = f"task-{task}.safetensors"
        if (first / name).read_bytes() != (second / name).read_bytes():
            raise Broken(f"the weights after task {task + 1} differ: {otherwise}")
    if results.correct != others.correct:
        raise Broken(f"the weights are equal, but the accuracy matrix differs: {otherwise}")


def memory_is_kept(folder: Path, replay: Replay, exemplars: int) -> None:
    """Check the number of exemplars after each task."""
    kept = read_run(folder).results.exemplars
    expected = exemplars if replay in (Replay.MIXED, Replay.PAIRED) else 0
    if [len(ids) for ids in kept] != [expected] * len(kept):
        raise Broken(
            f"the memory holds {', '.join(str(len(ids)) for ids in kept)} exemplars after the "
            f"tasks, not {expected}"
        )
    if any(len(set(ids)) < len(ids) for ids in kept):
        raise Broken("the memory holds a clip twice")


def allowed_clips(folder: Path, store: FeatureStore, task: int, replay: Replay) -> set[str]:
    """Return the ids of the training clips that may be seen in a task: its own and exemplars."""
    results, manifest = read_run(folder).results, store.manifest
    rows = store.rows("train")
    if replay is Replay.ALL:
        return {manifest.ids[row] for row in rows}
    names = set(results.tasks[task])
    own = {manifest.ids[row] for row in rows if manifest.classes[manifest.labels[row]] in names}
    return own | set(results.exemplars[task - 1])


def forbidden_clips(folder: Path, store: FeatureStore, task: int, replay: Replay) -> set[str]:
    """Return the ids of all other training clips."""
    ids = {store.manifest.ids[row] for row in store.rows("train")}
    return ids - allowed_clips(folder, store, task, replay)


def weights_hold_no_clip(folder: Path, store: FeatureStore, replay: Replay) -> None:
    """Check that the weights and notes of the last task hold no tokens of forbidden clips."""
    last = len(read_run(folder).results.tasks) - 1
    held = tokens_of(forbidden_clips(folder, store, last, replay), store)
    for name, value in load_file(folder / f"task-{last}.safetensors").items():
        if clip := first_held(value, held):
            raise Broken(
                f"{name} holds the tokens of {clip!r}, a clip of an earlier task: keep what was "
                "learned from clips, not the clips"
            )


def tokens_of(ids: Iterable[str], store: FeatureStore) -> dict[bytes, str]:
    """Return the bytes of the first visual token of each clip, and its id."""
    chosen = set(ids)
    rows = np.array([row for row, clip in enumerate(store.manifest.ids) if clip in chosen], int)
    if not len(rows):
        return {}
    visual = store.load(rows).visual[:, 0].astype(np.float16)
    names = [store.manifest.ids[row] for row in rows]
    return {token.tobytes(): name for token, name in zip(visual, names, strict=True)}


def first_held(value: np.ndarray, held: Mapping[bytes, str]) -> str:
    """Return the id of a clip whose token stands in an array; empty for none."""
    if value.dtype.kind != "f":
        return ""
    with np.errstate(over="ignore"):
        content = value.astype(np.float16).tobytes()
    return next((clip for token, clip in held.items() if token in content), "")


def back_to_task(finished: Path, done: int, runs: Path) -> Path:
    """Return a copy of a run folder as it was when `done` tasks were finished."""
    folder = Path(shutil.copytree(finished, runs / finished.parent.name / finished.name))
    results = read_run(folder).results
    for name in PER_TASK:
        del getattr(results, name)[done:]
    write_results(folder, results)
    for task in range(done, len(results.tasks)):
        (folder / f"task-{task}.safetensors").unlink()
    return folder
