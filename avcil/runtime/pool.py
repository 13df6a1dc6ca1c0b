"""A pool of processes that work on tasks, one task at a time each.

Decoding, extraction on several GPUs and parallel runs use it. Each process has a pipe to its parent
and to nothing else, so the parent always knows which process works on which task. If a process is
killed, crashes or takes too long, only its task is lost: the parent gets an event that says how the
process died, and starts another one for the next task. Processes end when their parent has ended,
even if it was killed by SIGKILL.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import ModuleType
from typing import Any, NamedTuple, Self

from avcil.runtime.stopping import ask_to_stop, end_with_parent, interrupts_blocked

Send = Callable[[Any], None]
"""Sends a message to the parent."""

Work = Callable[[Any, Send], Any]
"""Does one task and returns its result; called in the process, once per task."""

# Not "fork": the caller runs torch's threads, whose locks a forked child would inherit held, and
# CUDA does not survive a fork.
_CONTEXT = multiprocessing.get_context("spawn")

NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Message:
    """Something that the work on a task sent."""

    content: Any


@dataclass(frozen=True, slots=True)
class Done:
    """The task is done; the process waits for another one."""

    result: Any = None


@dataclass(frozen=True, slots=True)
class Raised:
    """The task ended with an exception; the process waits for another one."""

    error: Exception
    trace: str
    """The traceback, as Python prints it."""

    @classmethod
    def of(cls, error: Exception) -> Raised:
        """Describe an exception so that another process can read it."""
        trace = "".join(traceback.format_exception(error))
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # whatever its own methods raise
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return cls(error, trace)


@dataclass(frozen=True, slots=True)
class Died:
    """The process has died, and its task is lost."""

    how: str
    """The name of a signal, such as SIGKILL, or `exit status 1`."""


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The task took too long; its process was killed."""


Event = Message | Done | Raised | Died | TimedOut


class Report(NamedTuple):
    """An event, the worker that sent it, and the worker's task."""

    worker: int
    task: Any
    event: Event


@dataclass(slots=True)
class _Process:
    """A running process and its task."""

    process: SpawnProcess
    pipe: Connection
    busy: bool = False
    task: Any = None
    deadline: float = NEVER


class Pool:
    """Processes, numbered from 0; a context manager that ends all of them.

    One thread may use a pool at a time, except for `wake`.
    """

    def __init__(
        self,
        setup: Callable[..., Work],
        arguments: Sequence[tuple[Any, ...]],
        *,
        send: Callable[[Connection, Any], None] = Connection.send,
        receive: Callable[[Connection], Any] = Connection.recv,
        nested: bool = False,
        grace_s: float = 0.0,
    ) -> None:
        """Configure the pool; each process starts with its first task.

        Args:
            setup: returns the function that does the tasks; called once in each process.
            arguments: arguments of `setup`, for each process.
            send: writes a message to the pipe.
            receive: reads what `send` wrote.
            nested: whether the processes start processes of their own.
            grace_s: if positive, SIGTERM and the end of the parent only ask a process to stop (see
                `asked_to_stop`), and it is ended this many seconds after its parent.
        """
        self._setup, self._arguments, self._grace_s = setup, arguments, grace_s
        self._send, self._receive = send, receive
        self._daemon = not nested
        self._running: dict[int, _Process] = {}
        self._woken, self._waker = _CONTEXT.Pipe(duplex=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def idle(self) -> list[int]:
        """The workers that have no task, running or not."""
        return [number for number in range(len(self._arguments)) if number not in self.tasks]

    @property
    def tasks(self) -> dict[int, Any]:
        """The tasks under way, by worker."""
        return {number: each.task for number, each in self._running.items() if each.busy}

    def pid(self, worker: int) -> int | None:
        """Return the id of a worker's process, or None if it has not been started."""
        running = self._running.get(worker)
        return running.process.pid if running else None

    def start(self, worker: int) -> None:
        """Start a worker's process without a task, unless it is running."""
        running = self._running.get(worker)
        if running is not None and running.process.is_alive():
            return
        self.kill(worker)
        ours, theirs = _CONTEXT.Pipe()
        arguments = (theirs, self._setup, self._arguments[worker], self._send, self._grace_s)
        process = _CONTEXT.Process(target=_serve, args=arguments, daemon=self._daemon)
        # Ctrl-C reaches every process of a terminal: the parent decides
        with interrupts_blocked(), main_module_hidden():
            process.start()
        theirs.close()  # or the pipe would stay open when the process has ended
        self._running[worker] = _Process(process, ours)

    def give(self, worker: int, task: Any, timeout_s: float = NEVER) -> None:
        """Give a task to an idle worker, in a new process if it has none.

        Args:
            worker: which.
            task: anything that can be pickled.
            timeout_s: seconds after which the process is killed, its start included.
        """
        assert worker in self.idle, f"worker {worker} has a task already"
        self.start(worker)
        running = self._running[worker]
        running.busy, running.task = True, task
        running.deadline = time.monotonic() + timeout_s
        with contextlib.suppress(ConnectionError):  # it died just now: `wait` will report it
            running.pipe.send(task)

    def wait(self, timeout_s: float = NEVER) -> list[Report]:
        """Wait for events of workers that have a task.

        Returns after `timeout_s` seconds, or when `wake` is called, possibly with an empty list.
        """
        deadlines = [each.deadline for each in self._running.values()]
        seconds = max(0.0, min([timeout_s, *(each - time.monotonic() for each in deadlines)]))
        pipes = [self._woken, *(each.pipe for each in self._running.values())]
        ready = multiprocessing.connection.wait(pipes, None if seconds == NEVER else seconds)
        while self._woken.poll():
            self._woken.recv_bytes()
        reports = []
        for worker, running in list(self._running.items()):
            busy, task = running.busy, running.task
            event = self._event(worker, running.pipe in ready)
            if event is not None and busy:
                reports.append(Report(worker, task, event))
        return reports

    def _event(self, worker: int, readable: bool) -> Event | None:
        running = self._running[worker]
        if readable:
            try:
                event: Event = self._receive(running.pipe)
            except (EOFError, OSError):  # OSError: in the middle of a message
                return Died(self._reap(worker))
            if isinstance(event, Done | Raised):
                self._running[worker] = _Process(running.process, running.pipe)
            return event
        if time.monotonic() >= running.deadline:
            self.kill(worker)
            return TimedOut()
        return None

    def wake(self) -> None:
        """Make `wait` return, from another thread."""
        self._waker.send_bytes(b".")

    def terminate(self) -> None:
        """Send SIGTERM to every process that has a task; `wait` reports when each has ended."""
        for worker in self.tasks:
            self._running[worker].process.terminate()

    def kill(self, worker: int) -> None:
        """Kill a worker's process; the worker's next task starts a new one."""
        if worker in self._running:
            self._running[worker].process.kill()
            self._reap(worker)

    def close(self) -> None:
        """Kill all processes."""
        for worker in list(self._running):
            self.kill(worker)
        self._woken.close()
        self._waker.close()

    def _reap(self, worker: int) -> str:
        """Wait for the end of a process and return how it died."""
        running = self._running.pop(worker)
        running.process.join()
        running.pipe.close()
        return _how_it_died(running.process.exitcode or 0)


@contextmanager
def main_module_hidden() -> Iterator[None]:
    """Start processes that do not import the caller's main module.

    Otherwise each would run a script from its beginning that calls a function of `avcil` outside of
    `if __name__ == "__main__"`, and all would start processes in turn.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _how_it_died(code: int) -> str:
    """Name the signal of a negative exit code, or give the exit status."""
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}" if code < 0 else f"exit status {code}"


def _serve(
    pipe: Connection,
    setup: Callable[..., Work],
    arguments: tuple[Any, ...],
    transport: Callable[[Connection, Any], None],
    grace_s: float,
) -> None:
    """Do the tasks received through the pipe, until its other end is closed."""
    if grace_s:
        signal.signal(signal.SIGTERM, ask_to_stop)
    end_with_parent(grace_s)

    def send(event: Event) -> None:
        try:
            transport(pipe, event)
        except ConnectionError:  # the parent has ended; a run may still write its resume point
            ask_to_stop()

    def send_content(content: Any) -> None:
        send(Message(content))

    work: Work | None = None
    while True:
        try:
            task = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            work = work or setup(*arguments)
            send(Done(work(pickle.loads(task), send_content)))
        except Exception as error:
            send(Raised.of(error))
        except KeyboardInterrupt:  # the work was asked to stop
            return
