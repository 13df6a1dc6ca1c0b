"""Send a decoded clip to another process without copying its frames through a pipe.

The arrays lie in anonymous shared memory (memfd), whose descriptor goes through the pipe. Such
memory has no name and is freed when the last process that maps it has ended: no kill leaves
anything behind, and the small /dev/shm of a container is no limit. Where there is no such memory
(on other systems than Linux, or when it is full), everything goes through the pipe.
"""

from __future__ import annotations

import mmap
import os
import pickle
from collections.abc import Sequence
from functools import cache
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

from avcil.runtime.progress import log

ALIGNMENT = 64
"""Arrays begin at multiples of this many bytes, as numpy's own do."""


def send(pipe: Connection, item: object) -> None:
    """Send an object, the arrays in it through shared memory.

    Raises:
        ConnectionError: nobody is at the other end.
    """
    arrays: list[pickle.PickleBuffer] = []
    rest = pickle.dumps(item, protocol=5, buffer_callback=arrays.append)
    views = [array.raw() for array in arrays]
    if not views:
        pipe.send((rest, None, ""))
        return
    try:
        memory = _written(views)
    except OSError as error:
        pipe.send((pickle.dumps(item, protocol=5), None, error.strerror))
        return
    try:
        pipe.send((rest, [len(view) for view in views], ""))
        reduction.send_handle(pipe, memory, None)
    finally:
        os.close(memory)


def receive(pipe: Connection) -> Any:
    """Receive an object; its arrays free their memory when the last of them is deleted.

    Raises:
        EOFError: the sender has ended.
    """
    try:
        rest, sizes, reason = pipe.recv()
    except OSError as error:  # in the middle of a message
        raise EOFError from error
    if reason:
        _report_once(reason)
    if sizes is None:
        return pickle.loads(rest)
    memory = reduction.recv_handle(pipe)
    try:
        return pickle.loads(rest, buffers=_mapped(memory, sizes))
    finally:
        os.close(memory)


@cache
def _report_once(reason: str) -> None:
    log(f"no shared memory ({reason}): frames go through pipes, which is slower")


def _written(views: Sequence[memoryview]) -> int:
    """Return the descriptor of new memory that holds these bytes.

    Raises:
        OSError: there is no such memory.
    """
    if not hasattr(os, "memfd_create"):
        raise OSError(0, "this system has no memfd")
    memory = os.memfd_create("avcil-clip", os.MFD_CLOEXEC)
    try:
        for view, start in zip(views, _starts([len(view) for view in views]), strict=False):
            os.lseek(memory, start, os.SEEK_SET)
            # Written, not mapped: full memory is then an error here and no SIGBUS there.
            while len(view):
                view = view[os.write(memory, view) :]
    except OSError:
        os.close(memory)
        raise
    return memory


def _mapped(memory: int, sizes: Sequence[int]) -> list[memoryview]:
    if not any(sizes):
        return [memoryview(bytearray()) for _ in sizes]
    whole = memoryview(mmap.mmap(memory, 0))
    return [whole[start : start + size] for start, size in zip(_starts(sizes), sizes, strict=False)]


def _starts(sizes: Sequence[int]) -> list[int]:
    starts = [0]
    for size in sizes:
        starts.append(-(-(starts[-1] + size) // ALIGNMENT) * ALIGNMENT)
    return starts
