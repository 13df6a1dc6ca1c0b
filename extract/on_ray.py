"""A crew of actors on a Ray cluster, one a GPU; without a cluster, on this machine.

Ray places the members and carries their reports. It shares no state: what is written is in the
cache, which every machine sees at the same path or URL.
"""

from __future__ import annotations

import queue
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from avcil.errors import AvcilError
from avcil.extract.errors import EngineError
from avcil.extract.events import Broken, Committed, Crew, Event, Idle, Lost, Ready
from avcil.extract.plan import Plan
from avcil.extract.worker import Member


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """The part of a Ray cluster that is to be used."""

    members: int
    device: str
    cores: int
    """For each member."""
    each: int
    """Members on one machine, at most."""

    @classmethod
    def choose(cls, gpus: int | None = None, members: int | None = None) -> Cluster:
        """Choose from the cluster that this process has joined.

        Args:
            gpus: how many to use; left out, all of the cluster.
            members: processes where the cluster has no GPU; left out, one a machine.

        Raises:
            EngineError: the cluster has fewer GPUs.
        """
        machines = [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]
        there = int(sum(machine.get("GPU", 0) for machine in machines))
        if gpus is not None and gpus > there:
            raise EngineError(
                f"--gpus {gpus}: the Ray cluster has {there} GPUs; give a lower number, or leave "
                "--gpus out to use what it has"
            )
        count = gpus or there or members or len(machines)
        cores = int(sum(machine.get("CPU", 1) for machine in machines)) // count
        most = (
            [int(machine.get("GPU", 0)) for machine in machines]
            if there
            else [-(-count // len(machines))]
        )
        return cls(
            members=count,
            device="cuda" if there else "cpu",
            cores=max(1, cores),
            each=min(count, max(most)),
        )


class RayCrew(Crew):
    """Actors that are told and listened to by streams of reports."""

    def __init__(self, plan: Plan, cluster: Cluster) -> None:
        self.size = cluster.members
        self._device = cluster.device
        self._plan = ray.put(plan)
        # no CPUs are claimed: on a small machine the actor would wait for them forever
        gpus = 1 if cluster.device == "cuda" else 0
        self._class = ray.remote(RayMember).options(
            num_gpus=gpus, num_cpus=0, scheduling_strategy="SPREAD"
        )
        self._actors: dict[int, Any] = {}
        self._streams: dict[int, Any] = {}

    def start(self, member: int) -> None:
        """See Crew."""
        self._actors[member] = self._class.remote(self._plan, self._device)
        self._streams[member] = self._actors[member].load.remote()

    def give(self, member: int, shards: list[int]) -> None:
        """See Crew."""
        self._streams[member] = self._actors[member].work.remote(shards)

    def wait(self) -> list[tuple[int, Event]]:
        """See Crew."""
        members = {stream: member for member, stream in self._streams.items()}
        ready, _ = ray.wait(list(members), num_returns=1, fetch_local=False)
        return [(members[stream], self._receive(members[stream])) for stream in ready]

    def _receive(self, member: int) -> Event:
        try:
            event: Event = ray.get(next(self._streams[member]))
        except RayTaskError as error:  # a defect of ours, whose traceback should be seen
            return self._lost(member, str(error))
        except RayError as error:  # whatever ended it: out of memory is no RayActorError
            return self._lost(member, (str(error).strip() or type(error).__name__).splitlines()[0])
        if isinstance(event, Ready | Idle | Broken):
            del self._streams[member]
        return event

    def _lost(self, member: int, why: str) -> Lost:
        del self._streams[member]
        ray.kill(self._actors.pop(member))
        return Lost(why)

    def close(self) -> None:
        """See Crew."""
        for actor in self._actors.values():
            ray.kill(actor)


class RayMember:
    """A member as an actor: what it reports is a stream."""

    def __init__(self, plan: Plan, device: str) -> None:
        self._plan, self._device = plan, device
        self._member: Member | None = None

    def load(self) -> Iterator[Event]:
        """Load the encoder."""
        try:
            self._member = Member(self._plan, self._device)
            yield Ready(_name(self._device), self._member.encoding())
        except AvcilError as error:
            yield Broken(error)

    def work(self, shards: list[int]) -> Iterator[Event]:
        """Write shards; see Member.work, which calls back from another thread."""
        assert self._member is not None
        reports: queue.SimpleQueue[Committed | None] = queue.SimpleQueue()
        with ThreadPoolExecutor(1) as thread:
            work = thread.submit(self._member.work, shards, reports.put)
            work.add_done_callback(lambda _: reports.put(None))
            while (report := reports.get()) is not None:
                yield report
            try:
                work.result()
                yield Idle()
            except AvcilError as error:
                yield Broken(error)


def _name(device: str) -> str:
    given = ray.get_gpu_ids()
    return f"{device}{f':{given[0]}' if given else ''} on {socket.gethostname()}"
