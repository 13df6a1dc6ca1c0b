"""Decode many files in processes of their own: in order, with bounded memory, come what may.

A file that crashes the decoder or hangs in it costs that file only: its process is replaced. Each
process has a pipe to this one and to nobody else, so it is known who works on what, and a process
notices at once when this one is gone, even by kill -9.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import Self

from avcil.cache.schema import Failure
from avcil.extract.encoders.base import Media
from avcil.extract.errors import MediaError
from avcil.extract.media import Sampling, decode

Decoded = Media | Failure

# Not "fork": the caller runs torch's threads, whose locks a forked child would inherit held.
_CONTEXT = multiprocessing.get_context("spawn")


@dataclass(slots=True)
class _Worker:
    """A decoding process and the file it works on."""

    process: SpawnProcess
    pipe: Connection
    job: int | None = None
    deadline: float = 0.0


class Decoders:
    """Processes that decode files; a context manager that leaves none behind."""

    def __init__(self, count: int, sampling: Sampling, *, patience_s: float = 120.0) -> None:
        """Start the processes.

        Args:
            count: processes.
            sampling: what to take from each file.
            patience_s: a file that takes longer is given up.
        """
        self._sampling, self._patience_s = sampling, patience_s
        self._workers = [self._start() for _ in range(count)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            _bury(worker)

    def decode(self, paths: Sequence[Path]) -> Iterator[Decoded]:
        """Give what each file holds, or why it cannot be had, in order.

        At most two files a process are under way or waiting to be taken.
        """
        ready: dict[int, Decoded] = {}
        started = 0
        for wanted in range(len(paths)):
            while wanted not in ready:
                limit = min(len(paths), wanted + 2 * len(self._workers))
                started = self._feed(paths, started, limit)
                ready.update(self._collect())
            yield ready.pop(wanted)

    def _feed(self, paths: Sequence[Path], started: int, limit: int) -> int:
        """Give idle processes the next files before `limit`; return how many are started."""
        for number, worker in enumerate(self._workers):
            if started == limit:
                break
            if worker.job is not None:
                continue
            if not worker.process.is_alive():
                worker = self._replace(number)
            worker.job, worker.deadline = started, time.monotonic() + self._patience_s
            with contextlib.suppress(BrokenPipeError):  # died just now: _collect finds out
                worker.pipe.send(paths[started])
            started += 1
        return started

    def _collect(self) -> dict[int, Decoded]:
        """Wait until at least one file is done or given up; return all that are."""
        busy = {worker.pipe: worker for worker in self._workers if worker.job is not None}
        patience_s = min(worker.deadline for worker in busy.values()) - time.monotonic()
        multiprocessing.connection.wait(list(busy), timeout=max(0.0, patience_s))
        done: dict[int, Decoded] = {}
        for number, worker in enumerate(self._workers):
            job = worker.job
            if job is None:
                continue
            if worker.pipe.poll():
                done[job] = self._receive(number)
            elif time.monotonic() >= worker.deadline:
                done[job] = Failure(f"decoding takes longer than {self._patience_s:g} s")
                self._replace(number)
        return done

    def _receive(self, number: int) -> Decoded:
        worker = self._workers[number]
        try:
            decoded: Decoded = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            self._replace(number)
            return Failure(f"decoding crashed ({_cause(worker.process)})")
        worker.job = None
        return decoded

    def _replace(self, number: int) -> _Worker:
        self._workers[number].process.kill()
        _bury(self._workers[number])
        self._workers[number] = self._start()
        return self._workers[number]

    def _start(self) -> _Worker:
        ours, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_work, args=(theirs, self._sampling), daemon=True)
        process.start()
        theirs.close()  # or this process would keep the pipe open when that one is gone
        return _Worker(process, ours)


def _bury(worker: _Worker) -> None:
    worker.process.join()
    worker.pipe.close()


def _cause(process: SpawnProcess) -> str:
    process.join()
    code = process.exitcode or 0
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def _work(pipe: Connection, sampling: Sampling) -> None:
    """Decode the files that come through the pipe, until nobody is at its other end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all: the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        while True:
            pipe.send(_decoded(pipe.recv(), sampling))
    except (EOFError, ConnectionError):
        return


def _decoded(path: Path, sampling: Sampling) -> Decoded:
    try:
        return decode(path, sampling)
    except MediaError as error:
        return Failure(str(error))


def _die_with_parent() -> None:
    """End this process when its parent has ended, even if a file hangs in the decoder."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
