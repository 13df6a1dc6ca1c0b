"""Train many runs on one cache: resolve them, skip finished ones, train the rest."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from avcil.cache.reader import FeatureStore
from avcil.incremental.config.config import Config
from avcil.incremental.config.resolve import Request, resolve
from avcil.incremental.data.placement import Placement
from avcil.incremental.launch.continuing import KEPT
from avcil.incremental.launch.describe import describe
from avcil.incremental.launch.parallel import suitable_processes, train_in_processes
from avcil.incremental.launch.progress import RunsProgress
from avcil.incremental.launch.run import Job, summary
from avcil.incremental.runs.folder import RunFolder
from avcil.incremental.train.precision import compute_deterministically
from avcil.incremental.train.scenario import Scenario
from avcil.runtime.device import choose_device, use_granted_cores
from avcil.runtime.pool import Raised
from avcil.runtime.progress import log, track
from avcil.runtime.stopping import asked_to_stop, stopping_gently


def resolve_all(store: FeatureStore, requests: Sequence[Request]) -> list[Config]:
    """Return the configuration of each request, and check all of them before any training.

    Raises:
        ConfigError: an unknown name or a value that cannot work.
    """
    configs = []
    for request in requests:
        names: Any = request.settings.get("classes")
        if names is not None and set(names) == set(store.manifest.classes):
            names = None  # all of them: the run has the name that it has without the list
        request = replace(request, settings={**request.settings, "classes": names})
        configs.append(resolve(request, describe(store, names)))
    for config in configs:
        Scenario(config, store)
    return configs


def train(
    store: FeatureStore,
    configs: Sequence[Config],
    runs: Path,
    device: str = "auto",
    *,
    parallel: int | None = 1,
    engine: Literal["local", "ray"] = "local",
    force: bool = False,
    keep: bool | None = None,
) -> list[Path]:
    """Train every configuration that is not finished, and return the run folders.

    Args:
        store: the cache.
        configs: what to train; duplicates are trained once. If a run fails with any exception, the
            others are still trained.
        runs: the folder of the run folders.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        parallel: number of runs at once on a device; None chooses it.
        engine: `ray` spreads the runs over a cluster, `parallel` on each GPU.
        force: train again what is finished or begun; its results are deleted first.
        keep: whether runs keep what later tasks need of their clips; None if that is small.

    Raises:
        RunsFailed: some of several runs failed; the others are done.
        NonFiniteLoss: a loss term became NaN or infinite. This and the next two, like any other
            exception of a run, are raised only if a single run was asked for.
        RunBusy: another process trains the run.
        RunDamaged: a run folder cannot be read.
        NoCluster: Ray is not installed, or no cluster answers.
        KeyboardInterrupt: the user asked to stop; the same call resumes from there.
    """
    compute_deterministically()
    use_granted_cores()
    jobs = list_jobs(configs, runs, keep)
    for job in jobs if force else ():
        job.folder.clear()
    left, done = _unfinished(jobs)
    train_all, unit = _choose_engine(left, store, device, parallel, engine)
    label = left[0].label if len(left) == 1 else f"{len(left)} runs"
    try:
        with stopping_gently(), track(label, sum(job.epochs for job in left), unit, done) as bar:
            progress = RunsProgress(bar, len(jobs))
            train_all(progress)
    except KeyboardInterrupt:
        told = f"interrupted: all runs are kept in {runs}; run the same command again to resume"
        log(told)
        raise KeyboardInterrupt(told) from None
    progress.conclude()
    return [job.folder.path for job in jobs]


def list_jobs(configs: Sequence[Config], runs: Path, keep: bool | None = None) -> list[Job]:
    """Return the runs of a command, each once."""
    folders = {RunFolder.of(runs, config): config for config in configs}
    return [
        Job(config, folder, f"{number}/{len(folders)}", keep)
        for number, (folder, config) in enumerate(folders.items(), 1)
    ]


def choose_count(
    jobs: Sequence[Job], store: FeatureStore, device: torch.device, parallel: int | None
) -> int:
    """Return how many runs to train at once on a device."""
    return max(1, min(parallel or suitable_processes(jobs, store, device), len(jobs)))


def _choose_engine(
    jobs: Sequence[Job], store: FeatureStore, device: str, parallel: int | None, name: str
) -> tuple[Callable[[RunsProgress], None], str]:
    """Return a function that trains the runs, and the unit of its rate."""
    if name == "ray" and jobs:
        from avcil.incremental.launch.on_ray import train_on_ray

        return partial(train_on_ray, jobs, store, device, parallel or 1), "epochs"
    where = choose_device(device)
    count = choose_count(jobs, store, where, parallel)
    train_all = train_in_processes if count > 1 else _train_in_turn
    return partial(train_all, jobs, store, Placement(where, processes=count)), "clips"


def _unfinished(jobs: Sequence[Job]) -> tuple[list[Job], int]:
    """Return the unfinished runs, and the number of their finished epochs."""
    left, epochs = [], 0
    for job in jobs:
        results = job.results_so_far()
        kept = not job.keep or (job.folder.path / KEPT).exists()
        if results is not None and results.complete and kept:
            precision = results.versions.get("precision", "unknown precision")
            name = f"[{job.place}] {job.folder.path.name}"
            log(f"{name}: done before in {precision}, {summary(results)}")
            continue
        left.append(job)
        epochs += len(results.correct) * job.config.epochs if results else 0
    return left, epochs


def _train_in_turn(
    jobs: Sequence[Job], store: FeatureStore, placement: Placement, progress: RunsProgress
) -> None:
    for job in jobs:
        if asked_to_stop():
            raise KeyboardInterrupt
        try:
            progress.finished(job, job.train(store, placement, progress.bar_of(job)))
        except Exception as error:  # of any kind: the other runs are still trained
            raised = Raised.of(error)
            _clear_frames(error)
            progress.failed(job, raised)


def _clear_frames(error: BaseException | None) -> None:
    """Free a run's clips and networks, to which the frames of its error and causes refer."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
