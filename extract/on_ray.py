"""Workers on a Ray cluster, one for each GPU; without a cluster, on this machine.

Ray places the workers and delivers their events. They share only the cache, which every machine
sees at the same path or URL.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from avcil.cache.writer import CacheWriter
from avcil.errors import AvcilError
from avcil.extract.errors import EngineError
from avcil.extract.events import Broken, Event, Idle, Lost, Ready, Shard, Workers
from avcil.extract.plan import Plan
from avcil.extract.worker import JoinedWorker


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """The part of a Ray cluster to use."""

    workers: int
    device: str
    cores: int
    """For each worker."""
    each: int
    """Workers on one machine, at most."""

    @classmethod
    def choose(cls, gpus: int | None = None, workers: int | None = None) -> Cluster:
        """Choose from the cluster that this process has joined.

        Args:
            gpus: number of GPUs; None uses all of the cluster.
            workers: processes if the cluster has no GPU; None starts one on each machine.

        Raises:
            EngineError: the cluster has fewer GPUs.
        """
        machines = [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]
        there = int(sum(machine.get("GPU", 0) for machine in machines))
        if gpus is not None and gpus > there:
            raise EngineError(
                f"--gpus {gpus}: the Ray cluster has {there} GPUs; give a lower number, or leave "
                "out --gpus to use all"
            )
        count = gpus or there or workers or len(machines)
        cores = int(sum(machine.get("CPU", 1) for machine in machines)) // count
        most = (
            [int(machine.get("GPU", 0)) for machine in machines]
            if there
            else [-(-count // len(machines))]
        )
        return cls(
            workers=count,
            device="cuda" if there else "cpu",
            cores=max(1, cores),
            each=min(count, max(most)),
        )


class Actors(Workers):
    """Workers as actors, whose events are streamed."""

    def __init__(self, plan: Plan, cluster: Cluster) -> None:
        self.size = cluster.workers
        self._device = cluster.device
        self._plan = ray.put(plan)
        # no CPUs are requested: on a small machine the actor would wait for them forever
        gpus = 1 if cluster.device == "cuda" else 0
        self._class = ray.remote(RayWorker).options(
            num_gpus=gpus, num_cpus=0, scheduling_strategy="SPREAD"
        )
        self._actors: dict[int, Any] = {}
        self._streams: dict[int, Any] = {}

    def start(self, worker: int) -> None:
        """See Workers."""
        self._actors[worker] = self._class.remote(self._plan, self._device)
        self._streams[worker] = self._actors[worker].load.remote()

    def give(self, worker: int, shards: Sequence[Shard], writer: CacheWriter) -> None:
        """See Workers."""
        self._streams[worker] = self._actors[worker].encode.remote(shards)

    def wait(self) -> list[tuple[int, Event]]:
        """See Workers."""
        workers = {stream: worker for worker, stream in self._streams.items()}
        ready, _ = ray.wait(list(workers), num_returns=1, fetch_local=False)
        return [(workers[stream], self._receive(workers[stream])) for stream in ready]

    def _receive(self, worker: int) -> Event:
        try:
            event: Event = ray.get(next(self._streams[worker]))
        except RayTaskError as error:  # a bug, whose traceback should be seen
            return self._lost(worker, str(error))
        except RayError as error:  # not only RayActorError: running out of memory is none
            return self._lost(worker, (str(error).strip() or type(error).__name__).splitlines()[0])
        if isinstance(event, Ready | Idle | Broken):
            del self._streams[worker]
        return event

    def _lost(self, worker: int, reason: str) -> Lost:
        del self._streams[worker]
        ray.kill(self._actors.pop(worker))
        return Lost(reason)

    def close(self) -> None:
        """See Workers."""
        for actor in self._actors.values():
            ray.kill(actor)
        self._actors.clear()


class RayWorker:
    """A worker as an actor; its methods are generators, which Ray streams."""

    def __init__(self, plan: Plan, device: str) -> None:
        self._plan, self._device = plan, device
        self._worker: JoinedWorker | None = None

    def load(self) -> Iterator[Event]:
        """Load the encoder."""
        try:
            self._worker = JoinedWorker(self._plan, self._device)
            yield self._worker.ready(_name(self._device))
        except AvcilError as error:
            yield Broken(error)

    def encode(self, shards: Sequence[Shard]) -> Iterator[Event]:
        """Encode shards."""
        assert self._worker is not None
        try:
            yield from self._worker.encode(shards)
            yield Idle()
        except AvcilError as error:
            yield Broken(error)


def _name(device: str) -> str:
    given = ray.get_gpu_ids()
    return f"{device}{f':{given[0]}' if given else ''} on {socket.gethostname()}"
