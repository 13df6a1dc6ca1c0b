"""Decode many files in processes of their own: in order, with bounded memory, come what may.

A file that crashes the decoder or hangs in it costs that file only: its process is replaced. Each
process has a pipe to this one and to nobody else, so it is known who works on what, and a process
notices at once when this one is gone, even by kill -9. A thread gives out files and takes clips in,
so that no process waits while the caller is busy.
"""

from __future__ import annotations

import contextlib
import math
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
from avcil.extract.decode.media import Sampling, decode
from avcil.extract.decode.shared_memory import receive, send
from avcil.extract.encoders.base import Media
from avcil.extract.errors import MediaError
from avcil.runtime.machine import host_memory
from avcil.runtime.progress import log
from avcil.runtime.stopping import deaf_to_interrupts

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


class _Shelf:
    """What is decoded and not yet taken, between the thread and the caller."""

    def __init__(self) -> None:
        self._ready: dict[int, Decoded] = {}
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self.taken = 0
        self.largest = 1
        """Bytes of the largest clip so far."""

    def put(self, job: int, decoded: Decoded) -> None:
        with self._changed:
            self._ready[job] = decoded
            self._changed.notify()
        if isinstance(decoded, Media):
            self.largest = max(self.largest, decoded.frames.nbytes)

    def fail(self, error: BaseException) -> None:
        with self._changed:
            self._error = error
            self._changed.notify()

    def take(self) -> Decoded:
        """Wait for the next in order; raise what ended the thread."""
        with self._changed:
            self._changed.wait_for(lambda: self.taken in self._ready or self._error)
            if self._error:
                raise self._error
            self.taken += 1
            return self._ready.pop(self.taken - 1)


class Decoders:
    """Processes that decode files; a context manager that leaves none behind."""

    def __init__(
        self,
        count: int,
        sampling: Sampling,
        *,
        patience_s: float = 120.0,
        memory_bytes: int | None = None,
    ) -> None:
        """Start the processes.

        Args:
            count: processes.
            sampling: what to take from each file.
            patience_s: a file that takes longer is given up.
            memory_bytes: what clips under way and not yet taken may occupy; left out, as much as
                one process that encodes may have decoded.
        """
        self._sampling, self._patience_s = sampling, patience_s
        self._memory_bytes = memory_bytes or decoding_bytes()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._told_of_pipes = False
        self._ear, self._bell = _CONTEXT.Pipe(duplex=False)  # wakes the thread
        self._workers = [self._start() for _ in range(count)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()  # first: it would replace the processes that end here
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            _bury(worker)
        self._ear.close()
        self._bell.close()

    def decode(self, paths: Sequence[Path]) -> Iterator[Decoded]:
        """Give what each file holds, or why it cannot be had, in order.

        At most two files a process are under way or waiting to be taken, and fewer where clips are
        so large that they would need more than the memory that they may have.
        """
        shelf, self._stopped = _Shelf(), threading.Event()
        arguments = (paths, shelf, self._stopped)
        self._thread = threading.Thread(target=self._run, args=arguments, name="decoders")
        self._thread.daemon = True  # or a second Ctrl-C could leave the command hanging
        self._thread.start()
        for _ in paths:
            decoded = shelf.take()
            self._bell.send_bytes(b".")
            yield decoded
        self._stop()

    def _stop(self) -> None:
        """End the thread, if there is one."""
        if self._thread is not None:
            self._stopped.set()
            self._bell.send_bytes(b".")
            # Ctrl-C while it was started: what has not begun ends before it touches anything.
            with contextlib.suppress(RuntimeError):
                self._thread.join()
            self._thread = None

    def _run(self, paths: Sequence[Path], shelf: _Shelf, stopped: threading.Event) -> None:
        """Give out files and shelve what they hold, until all are done or it is stopped."""
        started = done = 0
        try:
            while done < len(paths) and not stopped.is_set():
                ahead = min(2 * len(self._workers), self._memory_bytes // shelf.largest)
                started = self._feed(paths, started, shelf.taken + max(1, ahead))
                for job, decoded in self._collect():
                    shelf.put(job, decoded)
                    done += 1
        except BaseException as error:
            shelf.fail(error)

    def _feed(self, paths: Sequence[Path], started: int, limit: int) -> int:
        """Give idle processes the next files before `limit`; return how many are started."""
        for number, worker in enumerate(self._workers):
            if started >= min(limit, len(paths)):
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

    def _collect(self) -> list[tuple[int, Decoded]]:
        """Wait until a file is done or given up, or the bell rings; return the files that are."""
        busy = [worker for worker in self._workers if worker.job is not None]
        patience_s = min((worker.deadline for worker in busy), default=math.inf) - time.monotonic()
        timeout = max(0.0, patience_s) if busy else None
        multiprocessing.connection.wait([self._ear, *(worker.pipe for worker in busy)], timeout)
        while self._ear.poll():
            self._ear.recv_bytes()
        done: list[tuple[int, Decoded]] = []
        for number, worker in enumerate(self._workers):
            job = worker.job
            if job is None:
                continue
            if worker.pipe.poll():
                done.append((job, self._receive(number)))
            elif time.monotonic() >= worker.deadline:
                done.append((job, Failure(f"decoding takes longer than {self._patience_s:g} s")))
                self._replace(number)
        return done

    def _receive(self, number: int) -> Decoded:
        worker = self._workers[number]
        try:
            parcel = receive(worker.pipe)
        except (EOFError, ConnectionResetError):
            self._replace(number)
            return Failure(f"decoding crashed ({_cause(worker.process)})")
        worker.job = None
        if parcel.why_pipe and not self._told_of_pipes:
            self._told_of_pipes = True
            log(f"no shared memory ({parcel.why_pipe}): frames go through pipes, which is slower")
        return parcel.item

    def _replace(self, number: int) -> _Worker:
        self._workers[number].process.kill()
        _bury(self._workers[number])
        self._workers[number] = self._start()
        return self._workers[number]

    def _start(self) -> _Worker:
        ours, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_work, args=(theirs, self._sampling), daemon=True)
        with deaf_to_interrupts():
            process.start()
        theirs.close()  # or this process would keep the pipe open when that one is gone
        return _Worker(process, ours)


def decoding_bytes(processes: int = 1) -> int:
    """Return what decoded clips may occupy: a quarter of the memory there is, among processes."""
    return host_memory().total // (4 * processes)


def _bury(worker: _Worker) -> None:
    worker.process.join()
    worker.pipe.close()


def _cause(process: SpawnProcess) -> str:
    process.join()
    code = process.exitcode or 0
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def _work(pipe: Connection, sampling: Sampling) -> None:
    """Decode the files that come through the pipe, until nobody is at its other end."""
    threading.Thread(target=die_with_parent, daemon=True).start()
    try:
        while True:
            send(pipe, _decoded(pipe.recv(), sampling))
    except (EOFError, ConnectionError):
        return


def _decoded(path: Path, sampling: Sampling) -> Decoded:
    try:
        return decode(path, sampling)
    except MediaError as error:
        return Failure(str(error))


def die_with_parent() -> None:
    """End this process when its parent has ended, even if a file hangs in the decoder."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
