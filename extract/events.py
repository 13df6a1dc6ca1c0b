"""Events that workers report while they encode the shards of a cache, and the workers' interface.

A worker has one device. It encodes the clips of the given shards and writes each shard itself. It
may die at any time: shards that it has not reported as finished are given to another worker, and
writing a shard twice does no harm.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from avcil.cache.schema import Encoding
from avcil.cache.writer import CacheWriter
from avcil.errors import AvcilError


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard to encode."""

    number: int
    clips: int
    """How many clips to encode; in a trial, maybe not all. Then the shard is not written."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The encoder is loaded."""

    name: str
    """The device and, if there are several, its machine."""
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class Encoded:
    """A clip has tokens."""

    shard: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A clip cannot be decoded or encoded."""

    shard: int
    clip: str
    reason: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A shard is written, or the requested number of its clips is encoded."""

    shard: int


@dataclass(frozen=True, slots=True)
class Idle:
    """All given shards are finished."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The worker cannot continue, because of an error that the user can fix."""

    error: AvcilError


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker has died."""

    reason: str


ShardEvent = Encoded | Failed | Finished
Event = Ready | ShardEvent | Idle | Broken | Lost


class Workers(ABC):
    """Workers, numbered from 0: in this process, in others, or on other machines."""

    size: int

    @abstractmethod
    def start(self, worker: int) -> None:
        """Start a worker, or replace it by a new one; it reports `Ready`."""

    @abstractmethod
    def give(self, worker: int, shards: Sequence[Shard], writer: CacheWriter) -> None:
        """Give shards to a worker that is ready or idle.

        Args:
            worker: its number.
            shards: what to encode, in this order.
            writer: the open cache; workers in other processes open it by its path.
        """

    @abstractmethod
    def wait(self) -> list[tuple[int, Event]]:
        """Wait for events; after `Lost` a worker reports nothing more."""

    @abstractmethod
    def close(self) -> None:
        """End all workers immediately."""
