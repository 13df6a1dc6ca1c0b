"""Checks of plug-ins, and what they find."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from avcil.errors import AvcilError
from avcil.plugins import Source, error_line


class Broken(AssertionError):
    """Something does not hold; the text says what is wrong and what to do."""


class NotChecked(Exception):
    """Something cannot be checked; the text says why."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold."""

    what: str
    run: Callable[[], None]
    """Raises `Broken` or `NotChecked`, or whatever the plug-in raises."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found."""

    what: str
    problem: str = ""
    """Empty if it holds."""
    unknown: str = ""
    """Why it was not checked."""


def run_checks(checks: Iterable[Check], source: Source | None) -> Iterator[Finding]:
    """Run checks one after the other; an exception of the plug-in is a problem, with its line."""
    for check in checks:
        try:
            check.run()
        except NotChecked as reason:
            yield Finding(check.what, unknown=str(reason))
        except (Broken, AvcilError) as problem:
            yield Finding(check.what, str(problem))
        except Exception as error:  # the code of a plug-in may raise anything
            yield Finding(check.what, error_line(error, source))
        else:
            yield Finding(check.what)
