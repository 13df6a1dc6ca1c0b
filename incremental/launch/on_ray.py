"""Train runs on a Ray cluster, or on this machine if there is no cluster.

Ray places the runs and returns their results. Their progress is read from the run folders, which
every machine must see at the same path, like the cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from avcil.cache.join import open_joined
from avcil.cache.reader import FeatureStore
from avcil.incremental.data.placement import Placement
from avcil.incremental.errors import ConfigError, RunBusy, RunLost
from avcil.incremental.launch.progress import RunsProgress
from avcil.incremental.launch.run import Job
from avcil.incremental.runs.folder import RunFolder
from avcil.incremental.runs.results import Results
from avcil.incremental.train.precision import compute_deterministically
from avcil.runtime.cluster import joined, settings_from_environment
from avcil.runtime.device import choose_device
from avcil.runtime.pool import Raised
from avcil.runtime.progress import Bar, log
from avcil.runtime.stopping import asked_to_stop, stopping_gently

SECONDS_BETWEEN_CHECKS = 1.0

LOSSES = 3
"""How many times a run is started again after its machine or process was lost."""

LEASE_S = 120.0
"""How long a lost machine may keep its locks on a network file system."""


def train_on_ray(
    jobs: Sequence[Job], store: FeatureStore, device: str, per_gpu: int, progress: RunsProgress
) -> None:
    """Train every run on some machine of the cluster, and report each to `progress`.

    Args:
        jobs: the runs; their folders and the cache are on a file system that all machines share.
        store: the cache.
        device: `cpu`, `cuda`, or `auto` for the GPUs of the cluster if it has any.
        per_gpu: number of runs at once on a GPU.
        progress: receives the results and errors of the runs.

    Raises:
        NoCluster: Ray is not installed, or no cluster responds.
        ConfigError: no machine of the cluster has such a device.
        KeyboardInterrupt: the user asked to stop; the runs have written their resume points.
    """
    if device.startswith("cuda:"):
        raise ConfigError(f"--engine ray chooses GPUs itself: give --device cuda, not {device}")
    with joined(), stopping_gently():  # after Ray has set its own handlers
        _Cluster(store, device, per_gpu, progress).run(
            [replace(job, folder=RunFolder(job.folder.path.resolve())) for job in jobs]
        )


def remote(function: Callable[..., object], gpus: float) -> Any:
    """Return a function that Ray calls on one core, or on a GPU or a part of one."""
    import ray

    return ray.remote(
        num_cpus=0 if gpus else 1,
        num_gpus=gpus,
        # A process that has used CUDA stays on its first GPU, so each call gets a new process.
        max_calls=1 if gpus else 0,
        max_retries=LOSSES,
        runtime_env={"env_vars": settings_from_environment()},
    )(function)


class _Cluster:
    """A cluster that trains runs."""

    def __init__(
        self, store: FeatureStore, device: str, per_gpu: int, progress: RunsProgress
    ) -> None:
        import ray

        self._ray: Any = ray
        self._progress = progress
        self._paths = [path if "://" in path else str(Path(path).resolve()) for path in store.paths]
        there = self._ray.cluster_resources().get("GPU", 0)
        if device == "cuda" and not there:
            raise ConfigError("--device cuda: the Ray cluster has no GPU; leave --device out")
        on_gpu = there > 0 and device != "cpu"
        self._placement = ("cuda" if on_gpu else "cpu", per_gpu if on_gpu else 1)
        self._train = remote(_train, 1 / per_gpu if on_gpu else 0)

    def run(self, jobs: Sequence[Job]) -> None:
        """Train all runs, and report each when it ends."""
        waiting = {self._train.remote(job, self._paths, *self._placement): job for job in jobs}
        bars = {job.folder.path: _Follower(job, self._progress.bar_of(job)) for job in jobs}
        while waiting:
            if asked_to_stop():
                self._stop(list(waiting))
            ended, _ = self._ray.wait(list(waiting), timeout=SECONDS_BETWEEN_CHECKS)
            for job in waiting.values():
                bars[job.folder.path].update()
            for task in ended:
                self._conclude(task, waiting.pop(task))

    def _conclude(self, task: Any, job: Job) -> None:
        path = job.folder.path
        try:
            outcome: Results | Raised = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            log(str(error))
            lost = RunLost(
                f"{path} was lost in the cluster, see above; run the same command again to resume "
                "it"
            )
            outcome = Raised.of(lost)
        if isinstance(outcome, Results) and not path.exists():
            elsewhere = ConfigError(
                f"{path} is on the machine that trained it and not here: --runs and the cache "
                "must be in folders that all machines of the cluster see at the same path"
            )
            outcome = Raised.of(elsewhere)
        if isinstance(outcome, Raised):
            self._progress.failed(job, outcome)
        else:
            self._progress.finished(job, outcome)

    def _stop(self, tasks: list[Any]) -> None:
        """Stop all runs; each writes its resume point."""
        for task in tasks:
            self._ray.cancel(task)  # SIGINT to those that train
        self._ray.wait(tasks, num_returns=len(tasks))
        raise KeyboardInterrupt


class _Follower:
    """Advances a bar by the epochs that a run folder records."""

    def __init__(self, job: Job, bar: Bar) -> None:
        self._path, self._bar = job.folder.path / "metrics.jsonl", bar
        self._total, self._seen = job.epochs, self._epochs()

    def update(self) -> None:
        """Advance by the epochs since the last update."""
        now = self._epochs()
        if now > self._seen:
            self._bar.advance(now - self._seen, f"epoch {now}/{self._total}")
            self._seen = now

    def _epochs(self) -> int:
        try:
            return self._path.read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0


class _NoBar:
    """The bar of a run whose progress is read from its folder."""

    def advance(self, amount: int = 1, note: str = "", items: int = 0) -> None:
        pass

    def skip(self, amount: int) -> None:
        pass


def _train(job: Job, paths: Sequence[str], device: str, processes: int) -> Results | Raised:
    """Train one run on a machine of the cluster; its exceptions are returned, not raised."""
    compute_deterministically()
    deadline = time.monotonic() + LEASE_S
    with stopping_gently():
        while True:
            try:
                store = open_joined(*paths)
                placement = Placement(choose_device(device), processes=processes)
                return job.train(store, placement, _NoBar())
            except RunBusy as error:
                if time.monotonic() > deadline or asked_to_stop():
                    return Raised.of(error)
                time.sleep(SECONDS_BETWEEN_CHECKS)
            except Exception as error:
                return Raised.of(error)
