"""Work off some shards of a cache: decode their clips, encode them, write whole shards.

This is all that one device does, be it the only one or one of many: `encode_shards` knows neither
which other shards there are nor who else writes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Protocol

import numpy as np

from avcil.cache.schema import Encoding, Failure, Tokens
from avcil.cache.writer import CacheWriter
from avcil.extract.datasets.base import Dataset
from avcil.extract.decode.decoders import Decoded, Decoders, decoding_bytes
from avcil.extract.encoders.base import Encoder, Media
from avcil.extract.events import Committed
from avcil.extract.plan import Plan, Settings
from avcil.runtime.machine import cores


class ShardWriter(Protocol):
    """Where tokens go; a CacheWriter, or what sends them to one."""

    def todo(self, shard: int) -> list[int]:
        """Return the rows of a shard that must be encoded."""

    def commit(self, shard: int, tokens: Sequence[Tokens | Failure]) -> None:
        """Write a shard, given one item a row of `todo(shard)`; called from one other thread."""


class Count(Protocol):
    """Is told what becomes of every clip."""

    def add_encoded(self) -> None:
        """Count a clip that has tokens."""

    def add_failed(self, clip: str, failure: Failure) -> None:
        """Count a clip that has none; may raise to end the run."""


def encode_shards(
    dataset: Dataset,
    encoder: Encoder,
    writer: ShardWriter,
    shards: Sequence[int],
    settings: Settings,
    tally: Count,
) -> None:
    """Write shards, in this order; each is written while the next is encoded.

    Args:
        dataset: the clips of the whole cache.
        encoder: what makes their tokens.
        writer: where they go.
        shards: which to work off; each has clips to do.
        settings: see Settings.
        tally: told of every clip.

    Raises:
        TooManyFailures: by the tally; shards that are encoded are written before.
        CacheError: by the writer.
    """
    encoder.set_precision(settings.precision)
    todo = {shard: writer.todo(shard) for shard in shards}
    now = _first(todo, settings.limit)
    ids = dataset.manifest().ids
    paths = dataset.paths([ids[row] for rows in now.values() for row in rows])
    if not paths:
        return
    workers = min(settings.workers, len(paths))
    with (
        threads_beside(workers),
        ThreadPoolExecutor(1, "writer") as thread,
        Decoders(
            workers,
            settings.sampling(encoder),
            patience_s=settings.patience_s,
            memory_bytes=decoding_bytes(settings.processes),
        ) as decoders,
    ):
        decoded = decoders.decode(paths)
        written: Future[None] | None = None
        for shard, rows in now.items():
            tokens = _encode([ids[row] for row in rows], decoded, encoder, tally)
            if written:
                written.result()
            if len(rows) == len(todo[shard]):
                written = thread.submit(writer.commit, shard, tokens)
        if written:
            written.result()


def _first(todo: dict[int, list[int]], limit: int | None) -> dict[int, list[int]]:
    """Return the first rows of the shards, so many in all."""
    kept = {}
    for shard, rows in todo.items():
        kept[shard] = rows[:limit]
        limit = limit if limit is None else limit - len(kept[shard])
    return kept


def _encode(
    clips: Sequence[str], decoded: Iterator[Decoded], encoder: Encoder, tally: Count
) -> list[Tokens | Failure]:
    """Return the tokens of a shard's clips, or why they have none.

    A shard by itself: whatever the encoder puts into one batch, a run that was killed puts the
    same clips into it when it goes on.
    """
    results: dict[int, Tokens | Failure] = {}
    under_way: deque[tuple[int, str]] = deque()  # row, note

    def readable() -> Iterator[Media]:
        for row, media in enumerate(islice(decoded, len(clips))):
            if isinstance(media, Failure):
                results[row] = media
                tally.add_failed(clips[row], media)
            else:
                under_way.append((row, media.note))
                yield media

    for tokens in encoder.stream(readable()):
        row, note = under_way.popleft()
        if np.isfinite(tokens.visual).all() and np.isfinite(tokens.audio).all():
            results[row] = replace(tokens, note=note)
            tally.add_encoded()
        else:
            results[row] = failure = Failure("the encoder gives numbers that are not finite")
            tally.add_failed(clips[row], failure)
    return [results[row] for row in range(len(clips))]


@contextmanager
def threads_beside(workers: int) -> Iterator[None]:
    """Give the encoder the cores that decoding leaves.

    More threads than free cores wait for each other: with 2 threads on 2 busy cores the demo took
    181 s, with 1 it took 15 s.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, cores() - workers)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
