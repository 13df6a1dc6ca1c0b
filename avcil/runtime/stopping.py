"""Turn Ctrl-C and SIGTERM into requests that a long job follows at its next safe point."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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
