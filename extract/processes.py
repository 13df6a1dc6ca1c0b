"""A crew of processes on this machine, one a device."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from avcil.errors import AvcilError
from avcil.extract.crew import Broken, Crew, Event, Idle, Lost, Member, Plan, Ready
from avcil.extract.workers import die_with_parent
from avcil.machine import cores
from avcil.stopping import deaf_to_interrupts

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
