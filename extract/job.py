"""Work off some shards of a cache: decode their clips, encode them, write whole shards.

This is all that one device does, be it the only one or one of many: `encode_shards` knows neither
which other shards there are nor who else writes them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Protocol

import numpy as np

from avcil.cache.schema import Failure, Tokens
from avcil.extract.datasets.base import Dataset
from avcil.extract.encoders.base import Encoder, Media
from avcil.extract.errors import TooManyFailures
from avcil.extract.settings import Settings
from avcil.extract.workers import Decoded, Decoders
from avcil.progress import Bar, log


class ShardWriter(Protocol):
    """Where tokens go; a CacheWriter, or what sends them to one."""

    def todo(self, shard: int) -> list[int]:
        """Return the rows of a shard that must be encoded."""

    def commit(self, shard: int, tokens: Sequence[Tokens | Failure]) -> None:
        """Write a shard, given one item a row of `todo(shard)`; called from one other thread."""


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
        self._bar.advance(note=f"{self.failed} failed" if self.failed else "")


def encode_shards(
    dataset: Dataset,
    encoder: Encoder,
    writer: ShardWriter,
    shards: Sequence[int],
    settings: Settings,
    tally: Tally,
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
    ids = dataset.manifest().ids
    todo = {shard: [ids[row] for row in writer.todo(shard)] for shard in shards}
    paths = dataset.paths([clip for clips in todo.values() for clip in clips])
    if not paths:
        return
    workers = min(settings.workers, len(paths))
    with (
        _threads_beside(workers),
        ThreadPoolExecutor(1, "writer") as thread,
        Decoders(workers, settings.sampling(encoder.sample_rate)) as decoders,
    ):
        decoded = decoders.decode(paths)
        written: Future[None] | None = None
        for shard, clips in todo.items():
            media = zip(clips, islice(decoded, len(clips)), strict=True)
            tokens = list(_encode(encoder, media, tally))
            if written:
                written.result()
            written = thread.submit(writer.commit, shard, tokens)
        if written:
            written.result()


def _encode(
    encoder: Encoder, decoded: Iterator[tuple[str, Decoded]], tally: Tally
) -> Iterator[Tokens | Failure]:
    """Give the tokens of each clip, or why it has none, in order."""
    for clip, media in decoded:
        result = media if isinstance(media, Failure) else _checked(encoder, media)
        if isinstance(result, Failure):
            tally.add_failed(clip, result)
        else:
            tally.add_encoded()
        yield result


def _checked(encoder: Encoder, media: Media) -> Tokens | Failure:
    (tokens,) = encoder.encode([media])
    if np.isfinite(tokens.visual).all() and np.isfinite(tokens.audio).all():
        return tokens
    return Failure("the encoder gives numbers that are not finite")


@contextmanager
def _threads_beside(workers: int) -> Iterator[None]:
    """Give the encoder the cores that decoding leaves.

    More threads than free cores wait for each other: with 2 threads on 2 busy cores the demo took
    181 s, with 1 it took 15 s.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, (os.cpu_count() or 1) - workers)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
