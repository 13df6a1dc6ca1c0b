"""From files to a cache: decode, encode, write whole shards; go on after a kill.

Decoding runs in other processes, ahead of the encoder and across the borders of shards; encoding
and writing run here. A shard is written when all its clips are there or have failed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from avcil.cache.schema import Failure, Storage, Tokens
from avcil.cache.writer import CacheWriter
from avcil.extract.datasets.base import Dataset
from avcil.extract.encoders.base import Encoder, Media
from avcil.extract.errors import TooManyFailures
from avcil.extract.media import Sampling
from avcil.extract.workers import Decoded, Decoders
from avcil.progress import Bar, log, track


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How to extract; nothing here but `seconds` and `visual_rate_hz` changes a token."""

    seconds: float
    """Nominal length of a clip."""
    visual_rate_hz: float
    """Frames that become visual tokens, a second."""
    workers: int = 2
    """Processes that decode."""
    max_failures: float = 0.05
    """Share of the clips that may fail before the rest is given up."""
    tolerated_failures: int = 20
    """So many clips may fail however few there are."""
    shard_clips: int | None = None
    """Clips a shard; left out, the cache chooses."""
    storage: Storage | None = None
    """How numbers lie on disk; left out, that of the cache or float16."""
    retry_failed: bool = False
    """Try the clips again that failed in an earlier run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What an extraction did."""

    path: Path
    clips: int
    """Clips of the data set, of this run or an earlier one."""
    encoded: int
    """Clips that this run encoded."""
    failures: dict[str, str]
    """Why clips have no tokens, by id, of this run or an earlier one."""
    duration_s: float


def extract(dataset: Dataset, encoder: Encoder, path: Path, settings: Settings) -> Summary:
    """Encode every clip of a data set that its cache does not hold yet.

    Args:
        dataset: the clips.
        encoder: what makes their tokens.
        path: the cache, made if it is not there.
        settings: see Settings.

    Raises:
        TooManyFailures: more clips failed than `settings` allow; written shards stay.
        CacheError: the cache cannot be written, or was made from other clips or otherwise.
    """
    start = time.monotonic()
    manifest = dataset.manifest()
    encoding = encoder.encoding(seconds=settings.seconds, visual_rate_hz=settings.visual_rate_hz)
    with CacheWriter.open(
        path, manifest, encoding, shard_clips=settings.shard_clips, storage=settings.storage
    ) as writer:
        if settings.retry_failed:
            writer.retry_failed()
        job = _Job(dataset, encoder, writer, settings)
        try:
            with _threads_beside(settings.workers):
                job.run()
        except KeyboardInterrupt:
            written = writer.shards - len(writer.pending())
            log(f"stopped: {written} of {writer.shards} shards are written; run again to go on")
            raise
        return Summary(
            path=path,
            clips=len(manifest),
            encoded=job.encoded,
            failures=writer.failures,
            duration_s=time.monotonic() - start,
        )


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


class _Job:
    """The shards that are still to be written, and what becomes of their clips."""

    def __init__(
        self, dataset: Dataset, encoder: Encoder, writer: CacheWriter, settings: Settings
    ) -> None:
        self._encoder, self._writer, self._settings = encoder, writer, settings
        self._ids = dataset.manifest().ids
        self._todo = {shard: writer.todo(shard) for shard in writer.pending()}
        rows = [row for rows in self._todo.values() for row in rows]
        self._paths = dataset.paths([self._ids[row] for row in rows])
        self._failed = len(writer.failures)
        self.encoded = 0

    def run(self) -> None:
        """Write every shard that is not written yet.

        Raises:
            TooManyFailures: more clips failed than the settings allow.
        """
        kept, shards = self._writer.shards - len(self._todo), self._writer.shards
        if kept:
            log(f"{kept} of {shards} shards are kept from an earlier run")
        if not self._paths:
            return
        total = len(self._ids)
        with (
            Decoders(min(self._settings.workers, len(self._paths)), self._sampling()) as decoders,
            track("extracting", total, "clips", done=total - len(self._paths)) as bar,
        ):
            decoded = decoders.decode(self._paths)
            for shard, rows in self._todo.items():
                self._writer.commit(shard, list(self._encode_rows(rows, decoded, bar)))

    def _sampling(self) -> Sampling:
        return Sampling(
            seconds=self._settings.seconds,
            visual_rate_hz=self._settings.visual_rate_hz,
            sample_rate=self._encoder.sample_rate,
        )

    def _encode_rows(
        self, rows: list[int], decoded: Iterator[Decoded], bar: Bar
    ) -> Iterator[Tokens | Failure]:
        for row, clip in zip(rows, islice(decoded, len(rows)), strict=True):
            result = clip if isinstance(clip, Failure) else self._encode(clip)
            if isinstance(result, Failure):
                self._count_failure(self._ids[row], result)
            else:
                self.encoded += 1
            yield result
            bar.advance(note=f"{self._failed} failed" if self._failed else "")

    def _encode(self, clip: Media) -> Tokens | Failure:
        (tokens,) = self._encoder.encode([clip])
        if np.isfinite(tokens.visual).all() and np.isfinite(tokens.audio).all():
            return tokens
        return Failure("the encoder gives numbers that are not finite")

    def _count_failure(self, clip: str, failure: Failure) -> None:
        self._failed += 1
        log(f"{clip}: {failure.reason}")
        settings, total = self._settings, len(self._ids)
        if self._failed > max(settings.tolerated_failures, settings.max_failures * total):
            raise TooManyFailures(
                f"{self._failed} of {total} clips failed, the last ({clip!r}) because: "
                f"{failure.reason}; if that is expected, run again with a higher --max-failures"
            )
