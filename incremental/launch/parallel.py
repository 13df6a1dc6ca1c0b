"""Train several runs at once on one device, each in a process of its own.

If the parent ends, even by SIGKILL, each process writes the resume point of its run and ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch

from avcil.cache.reader import FeatureStore
from avcil.errors import AvcilError
from avcil.incremental.data.placement import Placement
from avcil.incremental.errors import RunLost
from avcil.incremental.launch.progress import RunsProgress
from avcil.incremental.launch.run import Job
from avcil.incremental.runs.results import Results
from avcil.incremental.train.precision import compute_deterministically, computes_on_one_thread
from avcil.runtime.pool import Died, Done, Message, Pool, Raised, Report, Send
from avcil.runtime.progress import log, pass_on
from avcil.runtime.stopping import asked_to_stop

MOST_PROCESSES = 8
"""Processes started unless the user asks for more; each holds PyTorch and the clips of a task."""

SECONDS_BETWEEN_CHECKS = 0.2
"""Longest delay before a request to stop is noticed."""

GRACE_S = 300.0
"""How long a process may take to write its resume point after its parent has ended."""


def suitable_processes(jobs: Sequence[Job], store: FeatureStore, device: torch.device) -> int:
    """Return how many runs to train at once if the user does not say.

    On a CPU, runs that compute on one thread anyway share the cores, with the same results bit for
    bit. Otherwise 1, since it is unknown how much memory of a GPU other programs need.
    """
    small = all(computes_on_one_thread(job.config, store.encoding) for job in jobs)
    if device.type != "cpu" or not small:
        return 1
    return min(len(jobs), torch.get_num_threads(), MOST_PROCESSES)


def train_in_processes(
    jobs: Sequence[Job], store: FeatureStore, placement: Placement, progress: RunsProgress
) -> None:
    """Train runs, `placement.processes` at once, and report each to `progress`.

    Raises:
        KeyboardInterrupt: the user asked to stop; every run has written its resume point.
    """
    waiting, count = deque(jobs), placement.processes
    arguments = (store, placement, max(1, torch.get_num_threads() // count))
    with Pool(_Trainer, [arguments] * count, grace_s=GRACE_S) as pool:
        while waiting or pool.tasks:
            if asked_to_stop():
                pool.terminate()
                while pool.tasks:
                    for report in pool.wait():
                        _handle(report, pool, progress)
                raise KeyboardInterrupt
            for worker in pool.idle:
                if waiting:
                    pool.give(worker, waiting.popleft())
            for report in pool.wait(SECONDS_BETWEEN_CHECKS):
                _handle(report, pool, progress)


def _handle(report: Report, pool: Pool, progress: RunsProgress) -> None:
    worker, job, event = report
    match event:
        case Done(results):
            progress.finished(job, results)
        case Message(("advance", amount, note, items)):
            progress.bar_of(job).advance(amount, note, items)
        case Message(("skip", amount)):
            progress.bar_of(job).skip(amount)
        case Message(("log", text)):
            log(text)
        case Raised(error):
            progress.failed(job, event)
            if not isinstance(error, AvcilError):
                pool.kill(worker)  # the device may be unusable in that process
        case Died(how) if not asked_to_stop():
            lost = RunLost(
                f"the process that trained {job.folder.path} ended with {how}: if memory ran out, "
                "try a smaller --parallel; run the same command again to resume"
            )
            progress.failed(job, Raised.of(lost))


class _Trainer:
    """Trains runs in a process of its own."""

    def __init__(self, store: FeatureStore, placement: Placement, threads: int) -> None:
        torch.set_num_threads(threads)
        compute_deterministically()
        self._store, self._placement = store, placement

    def __call__(self, job: Job, send: Send) -> Results:
        pass_on(lambda text: send(("log", text)))
        return job.train(self._store, self._placement, _SentBar(send))


class _SentBar:
    """The bar of a run whose progress another process shows."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def advance(self, amount: int = 1, note: str = "", items: int = 0) -> None:
        self._send(("advance", amount, note, items))

    def skip(self, amount: int) -> None:
        self._send(("skip", amount))
