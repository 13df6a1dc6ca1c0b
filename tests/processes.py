"""What tests need to know about processes; Linux only, from /proc."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path


def is_running(pid: int) -> bool:
    """Return whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def all_end(pids: Sequence[int], seconds: float = 20) -> bool:
    """Wait for processes to end; return whether they did."""
    until = time.monotonic() + seconds
    while any(map(is_running, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(is_running, pids))


def children(pid: int) -> list[int]:
    """Return the processes that multiprocessing started for a process, in any of its threads."""
    while True:
        listed = Path(f"/proc/{pid}/task").glob("*/children")
        try:
            found = [int(child) for each in listed for child in each.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread has ended, and another one has its children now
        return [child for child in found if b"spawn_main" in _command(child)]


def descendants(pid: int) -> list[int]:
    """Return the children of a process, and theirs."""
    return [each for child in children(pid) for each in (child, *descendants(child))]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
