"""Several runs at once on one device, each in a process of its own.

Each process has a pipe to this one and to nobody else, so it is known who trains what, and a
process notices when this one is gone, even by kill -9: it writes its resume point and ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from avcil.cache.reader import FeatureStore
from avcil.errors import AvcilError
from avcil.incremental.data.placement import Placement
from avcil.incremental.errors import RunLost
from avcil.incremental.launch.progress import Tally
from avcil.incremental.launch.run import Job
from avcil.incremental.train.precision import compute_deterministically, computes_on_one_thread
from avcil.runtime.progress import log, pass_on
from avcil.runtime.stopping import ask_to_stop, asked_to_stop, deaf_to_interrupts

MOST = 8
"""Processes started without being asked for; each holds PyTorch and the clips of a task."""

SECONDS_BETWEEN_LOOKS = 0.2

# Not "fork": the caller runs torch's threads, whose locks a forked child would inherit held.
_CONTEXT = multiprocessing.get_context("spawn")


def suitable_processes(jobs: Sequence[Job], store: FeatureStore, device: torch.device) -> int:
    """Return how many runs to train at once where the user does not say.

    On a CPU, runs that compute on one thread anyway share the cores, and end with the same bits as
    one after the other. Elsewhere one: nobody knows what else needs the memory of the GPU.
    """
    small = all(computes_on_one_thread(job.config, store.encoding) for job in jobs)
    if device.type != "cpu" or not small:
        return 1
    return min(len(jobs), torch.get_num_threads(), MOST)


def train_in_processes(
    jobs: Sequence[Job], store: FeatureStore, residency: Placement, tally: Tally
) -> None:
    """Train runs, `residency.processes` at once, and tell `tally` of each.

    Raises:
        KeyboardInterrupt: the user asked to stop; every run has written its resume point.
    """
    pool = _Pool(jobs, store, residency, tally)
    try:
        pool.run()
    finally:
        pool.close()


@dataclass(slots=True, eq=False)
class _Worker:
    """A training process and the run it works on."""

    process: SpawnProcess
    pipe: Connection
    job: Job

    def take(self, job: Job) -> None:
        """Train a run; a process that has died meanwhile is met when it is listened to."""
        self.job = job
        with suppress(BrokenPipeError):
            self.pipe.send(job)


class _Pool:
    """The processes, and the runs that wait for one."""

    def __init__(
        self, jobs: Sequence[Job], store: FeatureStore, residency: Placement, tally: Tally
    ) -> None:
        self._waiting, self._tally, self._count = deque(jobs), tally, residency.processes
        threads = max(1, torch.get_num_threads() // self._count)
        self._equipment = (store, residency, threads)
        self._workers: list[_Worker] = []

    def run(self) -> None:
        """Train every run."""
        while self._workers or self._waiting:
            if asked_to_stop():
                self._stop()
                raise KeyboardInterrupt
            while self._waiting and len(self._workers) < self._count:
                self._start(self._waiting.popleft())
            self._listen(SECONDS_BETWEEN_LOOKS)

    def close(self) -> None:
        """Leave no process behind."""
        for worker in self._workers:
            worker.process.kill()
            worker.process.join()

    def _start(self, job: Job) -> None:
        pipe, far_end = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_work, args=(far_end, *self._equipment), daemon=True)
        with deaf_to_interrupts():
            process.start()
        far_end.close()
        worker = _Worker(process, pipe, job)
        self._workers.append(worker)
        worker.take(job)

    def _stop(self) -> None:
        """Let every process write its resume point and end."""
        for worker in self._workers:
            worker.process.terminate()
        while self._workers:
            self._listen(None)

    def _listen(self, patience_s: float | None) -> None:
        """Take in a message of each process that has one."""
        by_pipe = {worker.pipe: worker for worker in self._workers}
        for pipe in wait(list(by_pipe), patience_s):
            worker = by_pipe[pipe]  # type: ignore[index]
            try:
                self._hear(worker, worker.pipe.recv())
            except (EOFError, ConnectionResetError):
                self._bury(worker)

    def _hear(self, worker: _Worker, message: tuple[str, Any]) -> None:
        job, tally = worker.job, self._tally
        match message:
            case "advance", (amount, note, items):
                tally.of(job).advance(amount, note, items)
            case "skip", amount:
                tally.of(job).skip(amount)
            case "log", text:
                log(text)
            case "finished", results:
                tally.finished(job, results)
                self._next(worker)
            case "failed", error:
                tally.failed(job, error)
                self._next(worker)

    def _next(self, worker: _Worker) -> None:
        """Give a process that is done another run, or let it go."""
        if self._waiting and not asked_to_stop():
            worker.take(self._waiting.popleft())
        else:
            self._dismiss(worker)

    def _dismiss(self, worker: _Worker) -> None:
        worker.pipe.close()
        worker.process.join()
        self._workers.remove(worker)

    def _bury(self, worker: _Worker) -> None:
        """Tell what killed a process, unless we did."""
        self._dismiss(worker)
        if asked_to_stop():
            return
        code = worker.process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        error = RunLost(
            f"the process that trained {worker.job.folder.path} ended with {how}: if memory ran "
            "out, try a smaller --parallel; the same command goes on from the last resume point"
        )
        self._tally.failed(worker.job, error)


class _Wire:
    """The bar of a run whose progress another process shows."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def advance(self, amount: int = 1, note: str = "", items: int = 0) -> None:
        self.send("advance", (amount, note, items))

    def skip(self, amount: int) -> None:
        self.send("skip", amount)

    def log(self, text: str) -> None:
        self.send("log", text)

    def send(self, kind: str, content: object) -> None:
        try:
            self._pipe.send((kind, content))
        except (BrokenPipeError, ConnectionResetError):  # nobody is left to train for
            ask_to_stop()


def _work(pipe: Connection, store: FeatureStore, residency: Placement, threads: int) -> None:
    """Train the runs that come through the pipe, until it is closed."""
    signal.signal(signal.SIGTERM, ask_to_stop)
    torch.set_num_threads(threads)
    compute_deterministically()
    wire = _Wire(pipe)
    pass_on(wire.log)
    while True:
        try:
            job: Job = pipe.recv()
            wire.send("finished", job.train(store, residency, wire))
        except AvcilError as error:
            wire.send("failed", error)
        except (EOFError, KeyboardInterrupt):
            return
        except Exception:
            # A defect of ours; its run is lost, and those of the other processes are not.
            traceback.print_exc()
            os._exit(1)
