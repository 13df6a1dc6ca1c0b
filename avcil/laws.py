"""Laws that plug-ins are checked against, and what is found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from avcil.errors import AvcilError
from avcil.plugins import Source, say


class Broken(AssertionError):
    """A law does not hold; the text says what is wrong and what to do."""


class NotChecked(Exception):
    """A law cannot be checked; the text says why."""


@dataclass(frozen=True, slots=True)
class Law:
    """One thing that must hold."""

    what: str
    check: Callable[[], None]
    """Raises `Broken` or `NotChecked`, or whatever the plug-in raises."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about a law."""

    what: str
    problem: str = ""
    """Empty if it holds."""
    unknown: str = ""
    """Why it was not checked."""


def check_laws(laws: Iterable[Law], source: Source | None) -> Iterator[Finding]:
    """Check laws one after the other; an exception of the plug-in is a problem, with its line."""
    for law in laws:
        try:
            law.check()
        except NotChecked as reason:
            yield Finding(law.what, unknown=str(reason))
        except (Broken, AvcilError) as problem:
            yield Finding(law.what, str(problem))
        except Exception as error:  # the code of a plug-in may raise anything
            yield Finding(law.what, say(error, source))
        else:
            yield Finding(law.what)
