"""How this program starts processes, and how they end with their parent."""

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
from types import ModuleType

from avcil.runtime.stopping import ask_to_stop


@contextmanager
def main_module_hidden() -> Iterator[None]:
    """Start processes that do not import the caller's main module.

    Otherwise each would run a script from its beginning that calls a function of `avcil` outside of
    `if __name__ == "__main__"`, and all would start processes in turn.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


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
