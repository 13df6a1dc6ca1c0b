"""Several devices at work on one cache: what each is told, does and reports.

The shards of the cache are the unit of work. A member of the crew is a process with a device of its
own; it commits whole shards by itself and says so. It may die at any time: a shard that it has not
reported is given to another, and writing one twice does no harm.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from avcil.cache.schema import Encoding
from avcil.errors import AvcilError


@dataclass(frozen=True, slots=True)
class Ready:
    """The encoder is loaded."""

    name: str
    """The device and, if there are several, its machine."""
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class Committed:
    """A shard is written."""

    shard: int
    encoded: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    """Clip id -> reason, of the clips that this member tried."""


@dataclass(frozen=True, slots=True)
class Idle:
    """All shards that were given are written."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The member cannot work, for a reason that the user can mend."""

    error: AvcilError


@dataclass(frozen=True, slots=True)
class Lost:
    """The member is gone."""

    why: str


Event = Ready | Committed | Idle | Broken | Lost


class Crew(ABC):
    """Members that can be started, given shards, and listened to, by number."""

    size: int

    @abstractmethod
    def start(self, member: int) -> None:
        """Start a member, or another in its place; it reports that it is ready."""

    @abstractmethod
    def give(self, member: int, shards: list[int]) -> None:
        """Give shards to a member that is ready or idle."""

    @abstractmethod
    def wait(self) -> list[tuple[int, Event]]:
        """Wait until somebody reports something; after `Lost` a member reports nothing."""

    @abstractmethod
    def close(self) -> None:
        """End all members at once, whatever they do."""
