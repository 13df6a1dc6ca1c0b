"""Treat Ctrl-C and SIGTERM as a request that a long job follows at its next safe point."""

from __future__ import annotations

import signal
import threading
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


@contextmanager
def no_interrupt_lost() -> Iterator[None]:
    """Raise KeyboardInterrupt again at the end, because some libraries swallow it while loading."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if received:
        raise KeyboardInterrupt


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
