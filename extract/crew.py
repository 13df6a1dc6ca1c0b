"""Several devices at work on one cache: what each is told, does and reports.

The shards of the cache are the unit of work. A member of the crew is a process with a device of its
own; it commits whole shards by itself and says so. It may die at any time: a shard that it has not
reported is given to another, and writing one twice does no harm.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from avcil.cache.files import is_url
from avcil.cache.schema import Encoding, Failure, Tokens
from avcil.cache.writer import CacheWriter
from avcil.errors import AvcilError
from avcil.extract.datasets.base import Dataset
from avcil.extract.encoders import ENCODERS
from avcil.extract.encoders.base import Encoder
from avcil.extract.job import encode_shards
from avcil.extract.settings import Settings


@dataclass(frozen=True, slots=True)
class EncoderChoice:
    """An encoder by name, to be loaded in another process; see load_encoder."""

    name: str
    kept: Path

    def load(self, device: str) -> Encoder:
        """Load it onto a device, such as "cuda:1"."""
        import torch

        from avcil.extract.encoders import load_encoder

        chosen = torch.device(device)
        if chosen.type == "cuda" and chosen.index is not None:
            torch.cuda.set_device(chosen)  # what names no device, compiled kernels, goes there too
        return load_encoder(self.name, chosen, self.kept)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to extract, and how; goes to every member of the crew, so it can be pickled."""

    dataset: Dataset
    encoder: EncoderChoice
    path: Path | str
    """The cache, which every member sees at this path or URL."""
    settings: Settings

    def absolute(self) -> Plan:
        """Return the same with absolute paths, for processes that start elsewhere."""
        clips = [replace(clip, path=clip.path.absolute()) for clip in self.dataset.clips]
        name = Path(self.encoder.name)
        is_path = self.encoder.name not in ENCODERS and name.exists()
        return replace(
            self,
            dataset=replace(self.dataset, clips=tuple(clips)),
            encoder=EncoderChoice(
                str(name.absolute()) if is_path else self.encoder.name,
                self.encoder.kept.absolute(),
            ),
            path=self.path if is_url(self.path) else Path(self.path).absolute(),
        )


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


class Member:
    """One device's part, in the process that has the device."""

    def __init__(self, plan: Plan, device: str) -> None:
        """Load the encoder onto the device.

        Raises:
            ExtractError: by the encoder.
        """
        self._plan, self._encoder = plan, plan.encoder.load(device)
        self._encoder.set_precision(plan.settings.precision)
        self._writer: CacheWriter | None = None

    def encoding(self) -> Encoding:
        """Describe the tokens that this member makes."""
        settings = self._plan.settings
        return self._encoder.encoding(
            seconds=settings.seconds, visual_rate_hz=settings.visual_rate_hz
        )

    def work(self, shards: list[int], report: Callable[[Committed], None]) -> None:
        """Write shards and report each; the cache must be there.

        Raises:
            CacheError: the cache cannot be read or written.
        """
        writer = self._joined()
        for shard in shards:
            if not writer.todo(shard):  # by a member that died before it could say so
                report(Committed(shard))
        left = [shard for shard in shards if writer.todo(shard)]
        reporting = _Reporting(writer, self._plan.dataset.manifest().ids, report)
        encode_shards(
            self._plan.dataset, self._encoder, reporting, left, self._plan.settings, _NoTally()
        )

    def _joined(self) -> CacheWriter:
        if self._writer is None:
            self._writer = CacheWriter.join(self._plan.path)
            if self._plan.settings.retry_failed:
                self._writer.retry_failed()
        return self._writer


class _Reporting:
    """A writer that says which shards it has written."""

    def __init__(
        self, writer: CacheWriter, ids: Sequence[str], report: Callable[[Committed], None]
    ) -> None:
        self._writer, self._ids, self._report = writer, ids, report

    def todo(self, shard: int) -> list[int]:
        return self._writer.todo(shard)

    def commit(self, shard: int, tokens: Sequence[Tokens | Failure]) -> None:
        rows = self.todo(shard)
        self._writer.commit(shard, tokens)
        failures = {
            self._ids[row]: item.reason
            for row, item in zip(rows, tokens, strict=True)
            if isinstance(item, Failure)
        }
        self._report(Committed(shard, len(rows) - len(failures), failures))


class _NoTally:
    """Counts nothing: clips are counted where all members report."""

    def add_encoded(self) -> None:
        pass

    def add_failed(self, clip: str, failure: Failure) -> None:
        pass
