"""Progress of long jobs: a live bar on a terminal, plain lines everywhere else.

Everything goes to standard error, so that standard output carries results only. rich is imported
when the first bar or message is shown.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console

SECONDS_BETWEEN_LINES = 10.0


@cache
def console() -> Console:
    """Return the console of messages and bars: standard error."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def log(message: str) -> None:
    """Print one line for the user, above the bar if one is shown."""
    console().print(message, markup=False)


class Bar(Protocol):
    """What a job tells about its progress."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Add finished units; `note` replaces the text at the end of the bar."""


class _LiveBar:
    """A bar of rich, redrawn in place."""

    def __init__(self, label: str, total: int, unit: str, done: int) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
            console=console(),
            transient=True,
        )
        self._task = self._progress.add_task(label, total=total, completed=done, rate="", note="")
        self._unit = unit
        self._meter = _Meter(total, done)
        self._progress.start()

    def advance(self, amount: int = 1, note: str = "") -> None:
        self._meter.add(amount)
        rate = f"{self._meter.rate:.1f} {self._unit}/s"
        self._progress.update(self._task, advance=amount, rate=rate, note=note)

    def close(self) -> None:
        self._progress.stop()


class _LineBar:
    """A line of text every few seconds, for logs."""

    def __init__(self, label: str, total: int, unit: str, done: int) -> None:
        self._label, self._unit = label, unit
        self._meter = _Meter(total, done)
        self._printed_at = time.monotonic()

    def advance(self, amount: int = 1, note: str = "") -> None:
        self._meter.add(amount)
        if time.monotonic() - self._printed_at >= SECONDS_BETWEEN_LINES:
            self._printed_at = time.monotonic()
            meter = self._meter
            left = f"{meter.seconds_left:.0f} s left"
            rate = f"{meter.rate:.1f} {self._unit}/s"
            parts = [f"{self._label}: {meter.done}/{meter.total}", rate, left, note]
            log(", ".join(part for part in parts if part))

    def close(self) -> None:
        pass


class _Meter:
    """Counts units and seconds of this run alone; units done by an earlier run give no rate."""

    def __init__(self, total: int, done: int) -> None:
        self.total, self.done, self._first = total, done, done
        self._start = time.monotonic()

    def add(self, amount: int) -> None:
        self.done += amount

    @property
    def rate(self) -> float:
        return (self.done - self._first) / max(time.monotonic() - self._start, 1e-9)

    @property
    def seconds_left(self) -> float:
        return (self.total - self.done) / max(self.rate, 1e-9)


@contextmanager
def track(label: str, total: int, unit: str, done: int = 0) -> Iterator[Bar]:
    """Show the progress of a job of `total` units, of which an earlier run did `done`."""
    make = _LiveBar if sys.stderr.isatty() else _LineBar
    bar = make(label, total, unit, done)
    try:
        yield bar
    finally:
        bar.close()
