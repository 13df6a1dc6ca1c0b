"""Progress of long jobs: a live bar on a terminal, plain lines everywhere else.

Everything goes to standard error, so that standard output contains only results. rich is imported
when the first bar or message is shown.
"""

from __future__ import annotations

import builtins
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
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
    if _listener is None:
        console().print(message, markup=False)
    else:
        _listener(message)


_listener: Callable[[str], None] | None = None


def pass_on(listener: Callable[[str], None] | None) -> None:
    """Send the messages of this process to `listener`, for another process to show."""
    global _listener
    _listener = listener


class Bar(Protocol):
    """Interface through which a job reports its progress."""

    def advance(self, amount: int = 1, note: str = "", items: int = 0) -> None:
        """Add finished units.

        Args:
            amount: units.
            note: new text next to the bar, unless empty.
            items: number of items in these units, if the rate counts items.
        """

    def skip(self, amount: int) -> None:
        """Add units that an earlier process finished, which do not count for the rate."""


class _LiveBar:
    """A progress bar of rich, redrawn in place."""

    def __init__(self, label: str, meter: _Meter) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.table import Column

        self._meter, self._note = meter, ""
        rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            TextColumn("{task.fields[note]}", markup=False, table_column=rest),
            console=console(),
            transient=True,
            expand=True,
        )
        self._task = self._progress.add_task(
            label, total=meter.total, completed=meter.done, state="", note=""
        )
        self._progress.start()

    def advance(self, amount: int = 1, note: str = "", items: int = 0) -> None:
        self._meter.add(amount, items)
        self._note = note or self._note
        self._progress.update(
            self._task, completed=self._meter.done, state=str(self._meter), note=self._note
        )

    def skip(self, amount: int) -> None:
        self._meter.skip(amount)
        self._progress.update(self._task, completed=self._meter.done)

    def close(self) -> None:
        self._progress.stop()


class _LineBar:
    """A line of text every few seconds, for logs."""

    def __init__(self, label: str, meter: _Meter) -> None:
        self._label, self._meter, self._note = label, meter, ""
        self._printed_at = time.monotonic()

    def advance(self, amount: int = 1, note: str = "", items: int = 0) -> None:
        self._meter.add(amount, items)
        self._note = note or self._note
        if time.monotonic() - self._printed_at >= SECONDS_BETWEEN_LINES:
            self._printed_at = time.monotonic()
            place = f"{self._label}: {self._meter.done}/{self._meter.total}"
            log(", ".join(part for part in (place, str(self._meter), self._note) if part))

    def skip(self, amount: int) -> None:
        self._meter.skip(amount)

    def close(self) -> None:
        pass


class _Meter:
    """Counts finished units. Those that an earlier process finished do not count for the rate."""

    def __init__(self, total: int, unit: str, done: int) -> None:
        self.total, self.done, self._unit = total, done, unit
        self._here = self._counted = 0
        self._start = time.monotonic()

    def add(self, amount: int, items: int) -> None:
        self.done += amount
        self._here += amount
        self._counted += items or amount

    def skip(self, amount: int) -> None:
        self.done += amount

    def __str__(self) -> str:
        spent = max(time.monotonic() - self._start, 1e-9)
        rate = self._counted / spent
        left = (self.total - self.done) * spent / self._here if self._here else 0.0
        return f"{rate:,.{0 if rate >= 100 else 1}f} {self._unit}/s, {_duration(left)} left"


def _duration(seconds: float) -> str:
    """Return 42 s, 3:05 min or 2:03:05 h."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{rest:02d} h"
    return f"{minutes}:{rest:02d} min" if minutes else f"{rest} s"


def redraws() -> bool:
    """Return whether a bar can be redrawn in place: on a terminal, or in a notebook."""
    if sys.stderr.isatty():
        return True
    # IPython sets this name. Without ipywidgets, rich warns and shows the bar only at its end.
    in_notebook = hasattr(builtins, "get_ipython") and console().is_jupyter
    return in_notebook and find_spec("ipywidgets") is not None


@contextmanager
def track(label: str, total: int, unit: str, done: int = 0) -> Iterator[Bar]:
    """Show the progress of a job.

    Args:
        label: name of the job.
        total: number of units.
        unit: name of what the rate counts: units, or the `items` passed to `advance`.
        done: number of units that an earlier process finished.
    """
    make = _LiveBar if redraws() else _LineBar
    bar = make(label, _Meter(total, unit, done))
    try:
        yield bar
    finally:
        bar.close()
