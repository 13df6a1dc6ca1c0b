"""Work off some shards of a cache: decode their clips, encode them, write whole shards.

This is all that one device does, be it the only one or one of many: `encode_shards` knows neither
which other shards there are nor who else writes them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Protocol

import numpy as np

from avcil.cache.schema import Failure, Tokens
from avcil.extract.datasets.base import Dataset
from avcil.extract.encoders.base import Encoder, Media
from avcil.extract.errors import TooManyFailures
from avcil.extract.settings import Settings
from avcil.extract.workers import Decoded, Decoders, decoding_bytes
from avcil.machine import cores
from avcil.progress import Bar, log


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


class Tally:
    """Counts clips as they are done, shows them, and ends a run in which too many fail."""

    def __init__(self, settings: Settings, clips: int, bar: Bar, failed: int = 0) -> None:
        """Start to count.

        Args:
            settings: say how many may fail.
            clips: of the whole data set.
            bar: advanced by each clip.
            failed: clips that failed in an earlier run.
        """
        self._settings, self._clips, self._bar = settings, clips, bar
        self.encoded, self.failed = 0, failed
        self._done, self._times_s = 0, [time.monotonic()]  # start, first clip, latest clip

    @property
    def clips_per_s(self) -> float:
        """Return the rate since the first clip was done, since before that the pipeline fills."""
        if not self._done:
            return 0.0
        before, now = self._times_s[-2:]  # of one clip alone: since the start
        return max(1, self._done - 1) / max(now - before, 1e-9)

    def add_encoded(self) -> None:
        """Count a clip that has tokens."""
        self.encoded += 1
        self._advance()

    def add_failed(self, clip: str, failure: Failure) -> None:
        """Count a clip that has none.

        Raises:
            TooManyFailures: more than the settings allow.
        """
        self.failed += 1
        log(f"{clip}: {failure.reason}")
        self._advance()
        settings = self._settings
        if self.failed > max(settings.tolerated_failures, settings.max_failures * self._clips):
            raise TooManyFailures(
                f"{self.failed} of {self._clips} clips failed, the last ({clip!r}) because: "
                f"{failure.reason}; if that is expected, run again with a higher --max-failures"
            )

    def _advance(self) -> None:
        self._times_s[2 if self._done else 1 :] = [time.monotonic()]
        self._done += 1
        self._bar.advance(note=f"{self.failed} failed" if self.failed else "")


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
            settings.sampling(encoder.sample_rate),
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
