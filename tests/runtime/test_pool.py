"""The pool of processes: a task that goes wrong costs itself only, and no process stays behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from avcil.runtime.pool import Died, Done, Event, Message, Pool, Raised, Report, Send, TimedOut
from avcil.runtime.stopping import asked_to_stop
from tests.processes import all_end, is_running


class Unpicklable(Exception):
    """An exception that no other process can read."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


class Mixed:
    """Does tasks named by a word."""

    def __init__(self, name: str = "worker") -> None:
        if name == "broken":
            raise FileNotFoundError("no weights")
        self.name, self.count = name, 0

    def __call__(self, task: tuple[str, Any], send: Send) -> object:
        kind, value = task
        self.count += 1
        match kind:
            case "echo":
                send(value)
            case "several":
                for number in range(value):
                    send(number)
                return "the end"
            case "who":
                send((self.name, os.getpid(), self.count))
            case "raise":
                raise value
            case "raise unpicklable":
                raise Unpicklable("this", "that")
            case "signal":
                signal.raise_signal(value)
            case "exit":
                os._exit(value)
            case "sleep":
                send(os.getpid())
                time.sleep(value)
            case "hang in C":
                send(os.getpid())
                ctypes.PyDLL(None).sleep(value)  # holds the interpreter's lock
            case "until asked":
                send(os.getpid())
                while not asked_to_stop():
                    time.sleep(0.01)
                Path(value).write_text("resume point")
                raise KeyboardInterrupt
        return None


def run(pool: Pool, tasks: Sequence[Any]) -> list[tuple[Any, list[Event]]]:
    """Do tasks on all workers; return the events of each task, in order of their tasks."""
    waiting, found = deque(enumerate(tasks)), dict[int, list[Event]]()
    numbers: dict[int, int] = {}
    while waiting or pool.tasks:
        for worker in pool.idle:
            if waiting:
                numbers[worker], task = waiting.popleft()
                pool.give(worker, task)
        for report in pool.wait():
            assert report.task == tasks[numbers[report.worker]]
            found.setdefault(numbers[report.worker], []).append(report.event)
    return [(task, found[number]) for number, task in enumerate(tasks)]


def first_event(pool: Pool, task: Any, timeout_s: float = float("inf")) -> Event:
    pool.give(0, task, timeout_s)
    reports: list[Report] = []
    while not reports:
        reports = pool.wait()
    return reports[0].event


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 50])
def test_every_task_is_done_once_whatever_their_number(workers: int, count: int) -> None:
    with Pool(Mixed, [()] * workers) as pool:
        done = run(pool, [("echo", number) for number in range(count)])
        assert len([w for w in range(workers) if pool.pid(w)]) <= min(workers, count)
    assert [events for _, events in done] == [[Message(n), Done()] for n in range(count)]


def test_messages_of_a_task_come_in_order_before_its_end() -> None:
    with Pool(Mixed, [()]) as pool:
        ((_, events),) = run(pool, [("several", 5)])
    assert events == [*map(Message, range(5)), Done("the end")]


def test_each_worker_has_its_own_arguments_and_is_set_up_once() -> None:
    with Pool(Mixed, [("left",), ("right",)]) as pool:
        seen = [events[0] for _, events in run(pool, [("who", n) for n in range(10)])]
    found = [event.content for event in seen if isinstance(event, Message)]
    assert {name for name, _, _ in found} <= {"left", "right"}
    counts = {name: sorted(count for who, _, count in found if who == name) for name, *_ in found}
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in counts.values())


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (("signal", signal.SIGKILL), Died("SIGKILL")),
        (("signal", signal.SIGSEGV), Died("SIGSEGV")),
        (("signal", signal.SIGRTMIN + 5), Died(f"signal {signal.SIGRTMIN + 5}")),
        (("exit", 3), Died("exit status 3")),
        (("exit", 0), Died("exit status 0")),
    ],
)
def test_a_process_that_dies_costs_its_task_only_and_says_how(
    task: tuple[str, Any], expected: Event
) -> None:
    with Pool(Mixed, [(), ()]) as pool:
        done = run(pool, [("echo", 0), task, *[("echo", n) for n in range(1, 6)]])
        assert done.pop(1)[1] == [expected]
        assert [events for _, events in done] == [[Message(n), Done()] for n in range(6)]


def test_a_task_that_takes_too_long_is_ended_and_its_process_replaced() -> None:
    with Pool(Mixed, [()]) as pool:
        run(pool, [("echo", 0)])  # started
        old = pool.pid(0)
        assert old is not None
        pool.give(0, ("hang in C", 1000), timeout_s=0.5)
        reports = list[Report]()
        while pool.tasks:
            reports += pool.wait()
        *messages, last = [report.event for report in reports]
        assert last == TimedOut()
        assert messages in ([Message(old)], [])  # none: a busy machine took longer to begin
        assert not is_running(old)
        assert first_event(pool, ("echo", 1)) == Message(1)


@pytest.mark.parametrize(
    ("task", "kind", "text"),
    [
        (("raise", ValueError("wrong")), ValueError, "wrong"),
        (("raise", FileNotFoundError(2, "gone", "x")), FileNotFoundError, "gone"),
        (("raise", MemoryError()), MemoryError, ""),
        (("raise unpicklable", 0), RuntimeError, "Unpicklable: this and that"),
        (("two", "values", "too many"), ValueError, "too many values to unpack"),
    ],
)
def test_an_exception_is_the_task_s_and_the_process_goes_on(
    task: Any, kind: type[Exception], text: str
) -> None:
    with Pool(Mixed, [()]) as pool:
        run(pool, [("echo", 0)])  # started
        before = pool.pid(0)
        event = first_event(pool, task)
        assert isinstance(event, Raised)
        assert type(event.error) is kind
        assert text in str(event.error)
        assert "in __call__" in event.trace
        assert pool.idle == [0]
        assert pool.pid(0) == before
        assert first_event(pool, ("echo", 1)) == Message(1)


def test_a_worker_that_cannot_be_set_up_says_so_for_every_task() -> None:
    with Pool(Mixed, [("broken",)]) as pool:
        for _ in range(2):
            event = first_event(pool, ("echo", 0))
            assert isinstance(event, Raised)
            assert isinstance(event.error, FileNotFoundError)


def test_an_idle_process_that_dies_costs_nothing() -> None:
    with Pool(Mixed, [()]) as pool:
        run(pool, [("who", 0)])
        pid = pool.pid(0)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        # A zombie may have threads that still end; only when it can be reaped is it known as dead.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert pool.wait(0) == []
        assert first_event(pool, ("echo", 1)) == Message(1)


def test_another_thread_wakes_who_waits() -> None:
    with Pool(Mixed, [()]) as pool:
        pool.wake()
        assert pool.wait() == []


def test_a_process_that_is_asked_to_stop_finishes_what_it_must(tmp_path: Path) -> None:
    with Pool(Mixed, [()], grace_s=60) as pool:
        first_event(pool, ("until asked", tmp_path / "state"))
        pool.terminate()
        ((_, _, event),) = pool.wait()
    assert event == Died("exit status 0")
    assert (tmp_path / "state").read_text() == "resume point"


@pytest.mark.parametrize("task", [("sleep", 1000), ("hang in C", 1000)])
def test_closing_ends_processes_whatever_they_do(task: tuple[str, int]) -> None:
    with Pool(Mixed, [(), ()]) as pool:
        pool.give(1, ("sleep", 1000))
        first_event(pool, task)
        pids = [pid for worker in (0, 1) if (pid := pool.pid(worker))]
    assert len(pids) == 2
    assert not any(map(is_running, pids))


@pytest.fixture
def orphans(tmp_path: Path) -> Iterator[Callable[[str, float], list[int]]]:
    """Give what runs a task in a pool whose parent is then killed; it returns the processes."""
    pids: list[int] = []

    def start(task: str, grace_s: float) -> list[int]:
        call = f"parent({task!r}, {grace_s}, {str(tmp_path / 'state')!r})"
        command = [sys.executable, "-c", f"from tests.runtime import test_pool; test_pool.{call}"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment
        ) as parent:
            assert parent.stdout is not None
            pids.extend(map(int, parent.stdout.readline().split()))
            parent.kill()
        return pids

    yield start
    for pid in filter(is_running, pids):
        os.kill(pid, signal.SIGKILL)


def parent(task: str, grace_s: float, state: str) -> None:
    """Start two processes, print their ids when both are at work, and wait for ever."""
    pool, pids = Pool(Mixed, [(), ()], grace_s=grace_s), list[int]()
    for worker in (0, 1):
        pool.give(worker, (task, state if task == "until asked" else 1000))
    while len(pids) < 2:
        pids += [each.event.content for each in pool.wait() if isinstance(each.event, Message)]
    print(*pids, flush=True)
    time.sleep(1000)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("task", ["sleep", "hang in C"])
def test_no_process_outlives_a_parent_killed_by_sigkill(
    orphans: Callable[[str, float], list[int]], task: str
) -> None:
    pids = orphans(task, 0.0)
    assert len(pids) == 2
    assert all_end(pids)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_with_grace_saves_its_work_when_its_parent_is_killed_and_ends(
    orphans: Callable[[str, float], list[int]], tmp_path: Path
) -> None:
    assert all_end(orphans("until asked", 60.0))
    assert (tmp_path / "state").read_text() == "resume point"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_that_does_not_use_its_grace_is_ended_after_it(
    orphans: Callable[[str, float], list[int]],
) -> None:
    assert all_end(orphans("sleep", 0.5))
