"""Turn Ctrl-C and SIGTERM into requests that a long job follows at its next safe point."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType

_requested = threading.Event()


def ask_to_stop(*_: object) -> None:
    """Ask this process to stop at its next safe point; serves as a signal handler."""
    _requested.set()


def asked_to_stop() -> bool:
    """Return whether the job should save its state and raise KeyboardInterrupt."""
    return _requested.is_set()


@contextmanager
def stopping_gently() -> Iterator[None]:
    """Make the first Ctrl-C or SIGTERM a request to stop; the second stops immediately.

    Only the main thread receives signals, so in other threads the context has no effect.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, _ask_or_stop) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _requested.clear()


def end_at_once_on_interrupt() -> None:
    """Make Ctrl-C end this process at once, with one line, until work begins that needs an end.

    An exception is not safe while a program starts: C++ code that initializes PyTorch ends the
    process with a long message, and some libraries replace or swallow what an import raises.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as by nohup
        signal.signal(signal.SIGINT, _end_at_once)


def _end_at_once(*_: object) -> None:
    os.write(2, b"interrupted\n")
    os._exit(130)


@contextmanager
def interrupts_raise() -> Iterator[None]:
    """Make Ctrl-C raise KeyboardInterrupt for work that has something to clean up or to say."""
    if signal.getsignal(signal.SIGINT) is not _end_at_once:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, _end_at_once)


def _ask_or_stop(number: int, frame: FrameType | None) -> None:
    if asked_to_stop():
        raise KeyboardInterrupt
    ask_to_stop()


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Start processes that ignore Ctrl-C even while they import: they inherit the signal mask.

    A Ctrl-C during the context takes effect in this process at its end.
    """
    resource_tracker.ensure_running()  # multiprocessing would start it with interrupts unblocked
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent(grace_s: float = 0.0) -> None:
    """Make this process end when its parent has ended, even if that was killed by SIGKILL.

    Args:
        grace_s: seconds that it may take to finish; it is asked to stop at their start.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        ask_to_stop()
        time.sleep(grace_s)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if sys.platform == "linux":
        # The thread cannot run while C code holds the interpreter's lock. Therefore the kernel
        # also sends a signal when the parent's end of this pipe is closed.
        import fcntl

        fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
        number = signal.SIGTERM if grace_s else signal.SIGKILL
        fcntl.fcntl(parent.sentinel, fcntl.F_SETSIG, number)
        flags = fcntl.fcntl(parent.sentinel, fcntl.F_GETFL)
        fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, flags | os.O_ASYNC)
