"""Decode many files in processes of their own, in order and with bounded memory.

A file that crashes the decoder, hangs in it or makes it raise costs that file only. A thread gives
files to the processes and takes clips from them, so that none waits while the caller is busy.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from avcil.cache.schema import Failure
from avcil.extract.decode.media import Sampling, decode
from avcil.extract.decode.shared_memory import receive, send
from avcil.extract.encoders.base import Media
from avcil.extract.errors import MediaError
from avcil.runtime.machine import host_memory
from avcil.runtime.pool import Died, Done, Event, Pool, Raised, Send, TimedOut

Decoded = Media | Failure


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
        """Describe the processes; they start with the first files and stay until `close`.

        Args:
            count: processes.
            sampling: what to take from each file.
            patience_s: seconds after which to give up decoding a file.
            memory_bytes: what clips under way and not yet taken may occupy; left out, as much as
                one process that encodes may have decoded.
        """
        self._pool = Pool(_Decoder, [(sampling,)] * count, send=send, receive=receive)
        self._count, self._patience_s = count, patience_s
        self._memory_bytes = memory_bytes or decoding_bytes()
        self._most_frames = max(1, round(sampling.seconds * sampling.visual_rate_hz))
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._clip_bytes = 0  # of the largest clip that may come; 0: nothing was decoded yet

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        self._stop()
        self._pool.close()

    def decode(self, paths: Sequence[Path]) -> Iterator[Decoded]:
        """Yield what each file holds, or why it cannot be decoded, in order.

        At most two files per process are being decoded or wait to be taken, and fewer where clips
        are so large that they would need more than the memory that they may have. Another call
        ends this one.
        """
        self._stop()
        buffer, self._stopped = _Buffer(), threading.Event()
        arguments = (paths, buffer, self._stopped)
        self._thread = threading.Thread(target=self._run, args=arguments, name="decoders")
        self._thread.daemon = True  # or a second Ctrl-C could leave the command hanging
        self._thread.start()
        for _ in paths:
            decoded = buffer.take()
            self._pool.wake()
            yield decoded

    def _stop(self) -> None:
        """End the thread, and what was begun for it."""
        if self._thread is None:
            return
        self._stopped.set()
        self._pool.wake()
        # Ctrl-C while the thread was started: it then ends before it touches anything.
        with contextlib.suppress(RuntimeError):
            self._thread.join()
        self._thread = None
        for worker in self._pool.tasks:
            self._pool.kill(worker)

    def _run(self, paths: Sequence[Path], buffer: _Buffer, stopped: threading.Event) -> None:
        """Give out files and keep what they hold, until all are done or it is stopped."""
        waiting, killed = deque(range(len(paths))), _Killed()
        done = 0
        try:
            for worker in range(min(self._count, len(paths))):
                self._pool.start(worker)
            while done < len(paths) and not stopped.is_set():
                self._give(paths, waiting, killed, buffer.taken + self._ahead())
                for _, (number, _), event in self._pool.wait():
                    decoded = self._decoded(number, event, killed)
                    if decoded is not None:
                        buffer.put(number, decoded)
                        done += 1
        except BaseException as error:
            buffer.fail(error)

    def _ahead(self) -> int:
        """Return how many clips may be decoded ahead of the caller: one until a size is known."""
        if not self._clip_bytes:
            return 1
        return max(1, min(2 * self._count, self._memory_bytes // self._clip_bytes))

    def _give(
        self, paths: Sequence[Path], waiting: deque[int], killed: _Killed, limit: int
    ) -> None:
        """Give files before `limit` to idle processes; one that was killed before, alone."""
        for worker in self._pool.idle:
            busy = {number for number, _ in self._pool.tasks.values()}
            if busy & killed.before or (killed.again and busy):
                return
            if killed.again:
                number = killed.again.popleft()
            elif waiting and waiting[0] < limit:
                number = waiting.popleft()
            else:
                return
            self._pool.give(worker, (number, paths[number]), self._patience_s)

    def _decoded(self, number: int, event: Event, killed: _Killed) -> Decoded | None:
        """Return what became of a file, or None if it is to be tried again."""
        match event:
            case Done(Media() as clip):
                frame_bytes = clip.frames.nbytes // max(1, len(clip.frames))
                clip_bytes = max(clip.frames.nbytes, self._most_frames * frame_bytes)
                self._clip_bytes = max(self._clip_bytes, clip_bytes)
                return clip
            case Done(Failure() as failure):
                return failure
            case Died("SIGKILL") | Raised(MemoryError()):
                return killed.add(number, event)
            case Died(how):
                return Failure(f"decoding crashed ({how})")
            case Raised(error):
                return Failure(f"decoding failed ({type(error).__name__}: {error})")
            case TimedOut():
                return Failure(f"decoding takes longer than {self._patience_s:g} s")
        return None


class _Buffer:
    """Clips that are decoded and not yet taken, between the thread and the caller."""

    def __init__(self) -> None:
        self._decoded: dict[int, Decoded] = {}
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self.taken = 0

    def put(self, number: int, decoded: Decoded) -> None:
        with self._changed:
            self._decoded[number] = decoded
            self._changed.notify()

    def fail(self, error: BaseException) -> None:
        with self._changed:
            self._error = error
            self._changed.notify()

    def take(self) -> Decoded:
        """Wait for the next clip in order; raise what ended the thread."""
        with self._changed:
            self._changed.wait_for(lambda: self.taken in self._decoded or self._error)
            if self._error:
                raise self._error
            self.taken += 1
            return self._decoded.pop(self.taken - 1)


class _Killed:
    """Files that ran out of memory: each is tried once more while nothing else is decoded."""

    def __init__(self) -> None:
        self.again: deque[int] = deque()
        self.before: set[int] = set()

    def add(self, number: int, event: Died | Raised) -> Failure | None:
        """Have a file tried again, or fail if it was."""
        if number not in self.before:
            self.before.add(number)
            self.again.append(number)
            return None
        how = event.how if isinstance(event, Died) else type(event.error).__name__
        return Failure(f"decoding crashed ({how}), also alone: there may be too little memory")


class _Decoder:
    """Decodes files in a process, on one thread: the other cores have decoders of their own."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # torch may be imported later
        if "torch" in sys.modules:
            import torch

            torch.set_num_threads(1)

    def __call__(self, task: tuple[int, Path], send: Send) -> Decoded:
        try:
            return decode(task[1], self._sampling)
        except MediaError as error:
            return Failure(str(error))


def decoding_bytes(processes: int = 1) -> int:
    """Return what decoded clips may occupy: a quarter of the memory there is, among processes."""
    return host_memory().total // (4 * processes)
