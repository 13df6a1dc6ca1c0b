"""Workers on a Ray cluster, one for each GPU; without a cluster, on this machine.

Ray places the workers and delivers their events. They share only the cache, which every machine
sees at the same path or URL.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from avcil.cache.writer import CacheWriter
from avcil.errors import AvcilError
from avcil.extract.errors import EngineError
from avcil.extract.events import Broken, Event, Idle, Lost, Ready, Shard, Workers
from avcil.extract.plan import Plan
from avcil.extract.worker import JoinedWorker
from avcil.runtime.cluster import settings_from_environment


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """The part of a Ray cluster to use."""

    device: str
    cores: int
    """For each worker."""
    each: int
    """Workers on one machine, at most."""
    machines: tuple[str | None, ...]
    """The machine of each worker, by Ray's id; None where Ray chooses one with a free GPU."""

    @property
    def workers(self) -> int:
        """How many workers there are."""
        return len(self.machines)

    @classmethod
    def choose(cls, gpus: int | None = None, workers: int | None = None) -> Cluster:
        """Choose from the cluster that this process has joined.

        Args:
            gpus: number of GPUs; None uses all of the cluster.
            workers: processes if the cluster has no GPU; None starts one on each machine.

        Raises:
            EngineError: the cluster has fewer GPUs.
        """
        nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
        with_gpus = [name for name, has in nodes.items() for _ in range(int(has.get("GPU", 0)))]
        if gpus is not None and gpus > len(with_gpus):
            raise EngineError(
                f"--gpus {gpus}: the Ray cluster has {len(with_gpus)} GPUs; give a lower number, "
                "or leave out --gpus to use all"
            )
        if with_gpus:
            at = Counter(with_gpus)  # any of them, since Ray chooses a free GPU
            machines: list[str | None] = [None] * (gpus or len(with_gpus))
        else:
            names = list(islice(cycle(nodes), workers or len(nodes)))
            at, machines = Counter(names), [*names]
        shares = [nodes[name].get("CPU", 1) / count for name, count in at.items()]
        return cls(
            device="cuda" if with_gpus else "cpu",
            cores=max(1, int(min(shares))),
            each=min(len(machines), max(at.values())),
            machines=tuple(machines),
        )


class Actors(Workers):
    """Workers as actors, whose events are streamed."""

    def __init__(self, plan: Plan, cluster: Cluster) -> None:
        self.size = cluster.workers
        self._cluster = cluster
        self._plan = ray.put(plan)
        self._actors: dict[int, Any] = {}
        self._streams: dict[int, Any] = {}

    def start(self, worker: int) -> None:
        """See Workers."""
        machine, device = self._cluster.machines[worker], self._cluster.device
        where = NodeAffinitySchedulingStrategy(machine, soft=True) if machine else "SPREAD"
        actor = ray.remote(RayWorker).options(
            num_gpus=1 if device == "cuda" else 0,
            num_cpus=0,  # on a small machine, an actor that claims cores would wait for ever
            scheduling_strategy=where,
            runtime_env={"env_vars": settings_from_environment()},
        )
        self._actors[worker] = actor.remote(self._plan, device)
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
