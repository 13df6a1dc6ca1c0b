"""Continue a finished run with classes that arrive later.

The continued run is a run of its own over the old and the new classes, whose first tasks are taken
from the finished one. It then resumes as any interrupted run does, so it gives the same bits as a
run over all tasks at once.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from avcil.cache.join import join_stores
from avcil.cache.reader import FeatureStore
from avcil.cache.subset import copy_clips
from avcil.incremental.config.config import Config
from avcil.incremental.data.clips import Replay
from avcil.incremental.data.placement import clip_bytes
from avcil.incremental.data.tasks import split_tasks
from avcil.incremental.errors import ConfigError
from avcil.incremental.launch.describe import describe
from avcil.incremental.runs.features import copy_features
from avcil.incremental.runs.folder import RunFolder
from avcil.incremental.runs.results import Results, Run
from avcil.incremental.train.scenario import Scenario
from avcil.runtime.progress import log

KEPT = "kept.zarr"
"""In the run folder: what later tasks read of the clips of earlier ones."""
KEPT_BYTES = 20_000_000
"""Largest size of the tokens that are kept unless the user says so."""


def keep_clips(scenario: Scenario, results: Results, folder: Path, keep: bool | None) -> None:
    """Copy into the run folder what later tasks need: exemplars, validation and test clips.

    Args:
        scenario: of the finished run.
        results: of the finished run.
        folder: of the run.
        keep: whether to; None if their tokens are small.
    """
    store, path = scenario.store, folder / KEPT
    seen = scenario.tasks[-1].seen
    row_of = {clip: row for row, clip in enumerate(store.manifest.ids)}
    exemplars = [row_of[clip] for clip in results.exemplars[-1]]
    tested = [scenario.rows(split, seen) for split in ("val", "test")]
    rows = np.unique(np.concatenate([np.array(exemplars, np.int64), *tested]))
    small = len(rows) * clip_bytes(store) <= KEPT_BYTES
    if path.exists() or not (small if keep is None else keep):
        return
    partial = folder / f"{KEPT}.partial"
    shutil.rmtree(partial, ignore_errors=True)  # of a killed process
    copy_clips(store, rows, partial)
    partial.rename(path)


def continue_run(
    run: Run, caches: Sequence[FeatureStore], tasks: int, runs: Path
) -> tuple[FeatureStore, Config]:
    """Prepare the folder of a run that learns more classes after those of a finished run.

    Args:
        run: the finished run.
        caches: of the new classes; with that of the finished run, unless the run keeps its clips.
        tasks: number of tasks for the new classes.
        runs: the folder of the run folders.

    Returns:
        the caches as one, and the configuration of the new run.

    Raises:
        ConfigError: the run is unfinished, or the caches do not fit it.
        CannotJoin: the caches share clips, or differ in encoder.
    """
    learned = [name for task in run.results.tasks for name in task]
    if not run.results.complete:
        raise ConfigError(f"{run.folder} is unfinished: run its `avcil train` command again first")
    new = [cache for cache in caches if set(learned).isdisjoint(cache.manifest.classes)]
    old = [cache for cache in caches if cache not in new]
    if not new:
        raise ConfigError(
            f"no cache of new classes: {', '.join(each.where for each in old)} holds classes that "
            f"{run.folder} has learned; name the cache of the new clips with --cache"
        )
    config = Config.of_stored(run.config)
    past = _past(run, config, old)
    store = join_stores([past, *new])
    config = _extended(config, run.results, past, store, tasks)
    scenario = Scenario(config, store, len(run.results.correct))
    folder = RunFolder.of(runs, config)
    with folder.lock():
        if folder.read() is None:
            _begin(folder, run, config, scenario)
    return store, config


def _past(run: Run, config: Config, old: Sequence[FeatureStore]) -> FeatureStore:
    """Return the clips of the finished run: its cache, or what the run keeps."""
    if old:
        past = join_stores(old)
        if describe(past, config.classes).rows != config.rows:
            raise ConfigError(
                f"{past.where} is not the list of clips that {run.folder} was trained on: give its "
                "own cache, or none if the run keeps its clips"
            )
        return past
    if config.make_method().replay is Replay.ALL:
        raise ConfigError(
            f"{config.method['name']} trains on all clips of earlier tasks: give their cache, too, "
            "with --cache"
        )
    if not (run.folder / KEPT).exists():
        raise ConfigError(
            f"{run.folder} keeps no clips of its earlier tasks: give their cache, too, with "
            "--cache; a run keeps them if they are small, or with --keep"
        )
    return FeatureStore.open(run.folder / KEPT)


def _extended(
    config: Config, results: Results, past: FeatureStore, store: FeatureStore, tasks: int
) -> Config:
    """Return the configuration over the old and the new classes, as if all were there at once."""
    learned = [name for task in results.tasks for name in task]
    added = store.manifest.classes[len(past.manifest.classes) :]
    classes = None if config.classes is None else (*config.classes, *added)
    order = (*learned, *added)
    natural = tuple(name for name in store.manifest.classes if name in set(order))
    sizes = [
        *(len(task) for task in results.tasks),
        *(len(task.new) for task in split_tasks(len(added), tasks)),
    ]
    return replace(
        config,
        dataset=store.manifest.dataset,
        rows=describe(store, classes).rows,
        classes=classes,
        tasks=len(sizes),
        **_sizes(sizes, config.first_task),
        order_seed=None,
        class_order=None if order == natural else order,
    )


def _sizes(sizes: Sequence[int], first_task: int | None) -> dict[str, Any]:
    """Return the settings that divide classes so, as a run over all of them would have them."""
    try:
        usual = split_tasks(sum(sizes), len(sizes), first_task)
    except ConfigError:
        usual = []
    if [len(task.new) for task in usual] == list(sizes):
        return {"first_task": first_task, "task_sizes": None}
    return {"first_task": None, "task_sizes": tuple(sizes)}


def _begin(folder: RunFolder, run: Run, config: Config, scenario: Scenario) -> None:
    """Fill the folder of a new run with the finished tasks of another."""
    names = ["metrics.jsonl"]
    for task in range(len(run.results.correct)):
        names += [f"task-{task}.safetensors", f"rule-{task}.safetensors"]
    for name in names:  # closed forms have no metrics, most methods no rule
        if (run.folder / name).exists():
            shutil.copyfile(run.folder / name, folder.path / name)
    copy_features(run.folder, folder.path, len(run.results.correct), scenario.kept_clips)
    manifest, leak_free = scenario.store.manifest, scenario.leak_free_clips_to_test()
    if run.results.leak_free_total and not leak_free:
        log("the accuracy without clips that share a video with training is not continued")
    results = replace(
        run.results,
        cache=replace(run.results.cache, dataset=manifest.dataset, clips=len(manifest)),
        tasks=scenario.class_names(),
        total=scenario.clips_to_test(),
        confusion=[],
        leak_free_total=leak_free,
        leak_free_correct=run.results.leak_free_correct if leak_free else [],
    )
    folder.start(config, results)
