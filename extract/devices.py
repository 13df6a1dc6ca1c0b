"""A crew of processes on this machine, one a device."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from avcil.extract.errors import EngineError
from avcil.runtime.cluster import Engine
from avcil.runtime.machine import cores

if TYPE_CHECKING:
    from avcil.extract.pipeline import Summary
    from avcil.extract.plan import Plan

import multiprocessing
import multiprocessing.connection
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from avcil.errors import AvcilError
from avcil.extract.decode.decoders import die_with_parent
from avcil.extract.events import Broken, Crew, Event, Idle, Lost, Ready
from avcil.extract.plan import Plan
from avcil.extract.worker import Member
from avcil.runtime.stopping import deaf_to_interrupts

# Not "fork": the caller runs torch's threads, and CUDA does not survive a fork.
_CONTEXT = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class _Process:
    process: SpawnProcess
    pipe: Connection


class LocalCrew(Crew):
    """Processes that each have a pipe to this one."""

    def __init__(self, plan: Plan, devices: Sequence[str]) -> None:
        """Describe the crew; nobody is started.

        Args:
            plan: what to do.
            devices: one a process, such as "cuda:0"; "cpu" may stand there several times.
        """
        self.size = len(devices)
        self._plan, self._devices = plan, devices
        self._running: dict[int, _Process] = {}

    def start(self, member: int) -> None:
        """See Crew."""
        ours, theirs = _CONTEXT.Pipe()
        arguments = (theirs, self._plan, self._devices[member], self._name(member), self.size)
        # not a daemon: it starts decoding processes of its own
        process = _CONTEXT.Process(target=_serve, args=arguments, daemon=False)
        with deaf_to_interrupts():  # Ctrl-C reaches all: the parent decides
            process.start()
        theirs.close()  # or this process would keep the pipe open when that one is gone
        self._running[member] = _Process(process, ours)

    def _name(self, member: int) -> str:
        device = self._devices[member]
        several = self._devices.count(device) > 1
        return f"{device} (process {member + 1})" if several else device

    def give(self, member: int, shards: list[int]) -> None:
        """See Crew."""
        try:
            self._running[member].pipe.send(shards)
        except (BrokenPipeError, ConnectionResetError):
            return  # died just now: `wait` finds out

    def wait(self) -> list[tuple[int, Event]]:
        """See Crew."""
        members = {each.pipe: member for member, each in self._running.items()}
        ready = multiprocessing.connection.wait(list(members))
        return [(members[pipe], self._receive(members[pipe])) for pipe in members if pipe in ready]

    def _receive(self, member: int) -> Event:
        try:
            event: Event = self._running[member].pipe.recv()
        except (EOFError, OSError):  # OSError: in the middle of a message
            return Lost(_bury(self._running.pop(member)))
        return event

    def close(self) -> None:
        """See Crew."""
        for each in self._running.values():
            each.process.kill()
        for each in self._running.values():
            _bury(each)
        self._running.clear()


def _bury(member: _Process) -> str:
    """Wait for a process' end and return its cause."""
    member.pipe.close()
    member.process.join()
    code = member.process.exitcode or 0
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def _serve(pipe: Connection, plan: Plan, device: str, name: str, crew: int) -> None:
    """Work off what comes through the pipe, until nobody is at its other end."""
    threading.Thread(target=die_with_parent, daemon=True).start()
    _share_cores(crew)
    try:
        member = Member(plan, device)
        pipe.send(Ready(name, member.encoding()))
        while True:
            member.work(pipe.recv(), pipe.send)
            pipe.send(Idle())
    except AvcilError as error:
        pipe.send(Broken(error))
    except (EOFError, ConnectionError):
        return


def _share_cores(crew: int) -> None:
    import torch

    torch.set_num_threads(max(1, cores() // crew))


def check_engine(engine: Engine, gpus: int | None, device: str, limit: int | None) -> None:
    """Refuse options that do not go together, and GPUs that are not here.

    Raises:
        EngineError: saying which.
    """
    if is_alone(engine, gpus):
        return
    if device != "auto":
        raise EngineError(
            f"--device {device} is one device: leave it out beside --gpus and --engine"
        )
    if limit is not None:
        raise EngineError("a trial runs on one device: leave out --gpus and --engine with --limit")
    if engine == "local":
        _cuda_devices(gpus or 1)


def is_alone(engine: Engine, gpus: int | None) -> bool:
    """Tell whether one process encodes, this one."""
    return engine == "local" and gpus is None


def encode_together(
    plan: Plan, engine: Engine, gpus: int | None, *, workers: int | None
) -> Summary:
    """Extract with several processes.

    Args:
        plan: what to do.
        engine: where.
        gpus: how many.
        workers: decoding processes for each; left out, as many as its share of the cores.

    Raises:
        EngineError: there are not so many GPUs.
        NoCluster: Ray is not installed, or no cluster answers.
        ExtractError, CacheError: see extract_with.
    """
    from avcil.extract.pipeline import extract_with

    if engine == "ray":
        from avcil.runtime.cluster import joined

        with joined():
            from avcil.extract.on_ray import Cluster, RayCrew

            cluster = Cluster.choose(gpus)
            plan = _shared(plan.absolute(), workers or cluster.cores, cluster.each)
            return extract_with(RayCrew(plan, cluster), plan)

    devices = _cuda_devices(gpus or 1)
    share = max(1, cores() // len(devices))
    plan = _shared(plan, workers or share, len(devices))
    return extract_with(LocalCrew(plan, devices), plan)


def _shared(plan: Plan, workers: int, processes: int) -> Plan:
    """Let each of so many processes on a machine have its share of it."""
    return replace(plan, settings=replace(plan.settings, workers=workers, processes=processes))


def _cuda_devices(count: int) -> list[str]:
    import torch

    here = torch.cuda.device_count()
    if count > here:
        raise EngineError(
            f"--gpus {count}: {here} CUDA devices are here; give a lower number, or leave --gpus "
            "out to encode on one device, the CPU where there is no other"
        )
    return [f"cuda:{number}" for number in range(count)]
