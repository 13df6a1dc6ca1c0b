"""What workers report while they encode the shards of a cache, and where the reports come from.

A worker has one device. It encodes the clips of the shards that it is given and writes each shard
by itself. It may die at any time: a shard that it has not reported as finished is given to another
worker, and writing a shard twice does no harm.
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
    """How many clips to encode; a shard of which this leaves some is not written (a trial)."""


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
    """A shard is written, or as many of its clips are encoded as were asked for."""

    shard: int


@dataclass(frozen=True, slots=True)
class Idle:
    """All given shards are finished."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The worker cannot go on, for a reason that the user can remove."""

    error: AvcilError


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker is gone."""

    reason: str


ShardEvent = Encoded | Failed | Finished
Event = Ready | ShardEvent | Idle | Broken | Lost


class Workers(ABC):
    """Workers by number, from 0: in this process, in others, or on other machines."""

    size: int

    @abstractmethod
    def start(self, worker: int) -> None:
        """Start a worker, or another one in its place; it reports that it is ready."""

    @abstractmethod
    def give(self, worker: int, shards: Sequence[Shard], writer: CacheWriter) -> None:
        """Give shards to a worker that is ready or idle.

        Args:
            worker: which.
            shards: what to encode, in this order.
            writer: the open cache; a worker in another process joins it by its path.
        """

    @abstractmethod
    def wait(self) -> list[tuple[int, Event]]:
        """Wait until workers report something; after `Lost` a worker reports nothing."""

    @abstractmethod
    def close(self) -> None:
        """End all workers at once, whatever they do."""
