"""From files to a cache on one device; go on after a kill."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from avcil.cache.files import is_url
from avcil.cache.writer import CacheWriter
from avcil.extract.datasets.base import Dataset
from avcil.extract.encoders.base import Encoder
from avcil.extract.errors import NoRoom
from avcil.extract.job import Tally, encode_shards
from avcil.extract.settings import Settings
from avcil.progress import log, track


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What an extraction did."""

    path: Path | str
    clips: int
    """Clips of the data set, of this run or an earlier one."""
    encoded: int
    """Clips that this run encoded."""
    failures: dict[str, str]
    """Why clips have no tokens, by id, of this run or an earlier one."""
    duration_s: float
    clips_per_s: float
    """Clips a second of this run, without the time until the first was done."""
    left: int = 0
    """Clips that a trial has left, or encoded and not kept."""
    clip_bytes: int
    """What a clip takes on disk, uncompressed."""

    @property
    def is_trial(self) -> bool:
        """Tell whether the cache is still incomplete."""
        return self.left > 0


def extract(dataset: Dataset, encoder: Encoder, path: Path | str, settings: Settings) -> Summary:
    """Encode every clip of a data set that its cache does not hold yet.

    Args:
        dataset: the clips.
        encoder: what makes their tokens.
        path: the cache, a folder or a URL; made if it is not there.
        settings: see Settings.

    Raises:
        TooManyFailures: more clips failed than `settings` allow; written shards stay.
        NoRoom: the disk is too small for what is to be written.
        CacheError: the cache cannot be written, or was made from other clips or otherwise.
    """
    start = time.monotonic()
    encoder.set_precision(settings.precision)
    manifest = dataset.manifest()
    encoding = encoder.encoding(seconds=settings.seconds, visual_rate_hz=settings.visual_rate_hz)
    with CacheWriter.open(
        path, manifest, encoding, shard_clips=settings.shard_clips, storage=settings.storage
    ) as writer:
        if settings.retry_failed:
            writer.retry_failed()
        try:
            tally = _write(dataset, encoder, writer, path, settings)
        except KeyboardInterrupt:
            written = writer.shards - len(writer.pending())
            log(f"stopped: {written} of {writer.shards} shards are written; run again to go on")
            raise
        return Summary(
            path=path,
            clips=len(manifest),
            encoded=tally.encoded,
            failures=writer.failures,
            duration_s=time.monotonic() - start,
            clips_per_s=tally.clips_per_s,
            left=count_left(writer),
            clip_bytes=writer.clip_bytes,
        )


def count_left(writer: CacheWriter) -> int:
    """Return how many clips are still to be encoded."""
    return sum(len(writer.todo(shard)) for shard in writer.pending())


def free_bytes(path: Path | str) -> int | None:
    """Return how much room is left where a cache lies, or None for a bucket."""
    return None if is_url(path) else shutil.disk_usage(path).free


def check_room(path: Path | str, clips: int, clip_bytes: int) -> None:
    """Refuse to write more than the disk can take.

    Raises:
        NoRoom: saying how much is needed, how much is free, and what to do.
    """
    free, needed = free_bytes(path), clips * clip_bytes
    if free is not None and needed > free:
        raise NoRoom(
            f"the tokens of {clips} clips need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are "
            f"free at {path}: make room, choose another disk with --cache, or begin a new cache "
            "with --numbers int8, which takes half"
        )


def _write(
    dataset: Dataset, encoder: Encoder, writer: CacheWriter, path: Path | str, settings: Settings
) -> Tally:
    """Write every shard that is not written yet, or those of a trial."""
    shards, clips, left = writer.pending(), len(dataset.clips), count_left(writer)
    if len(shards) < writer.shards:
        kept = writer.shards - len(shards)
        log(f"{kept} of {writer.shards} shards are kept from an earlier run")
    now = left
    if settings.limit is not None and settings.limit < left:
        now = settings.limit
        shards = _spread(shards, -(-now // writer.shard_clips))
    check_room(path, now, writer.clip_bytes)
    with track("extracting", clips, "clips", done=clips - left) as bar:
        tally = Tally(settings, clips, bar, failed=len(writer.failures))
        encode_shards(dataset, encoder, writer, shards, settings, tally)
    return tally


def _spread(shards: list[int], count: int) -> list[int]:
    """Choose so many shards from all over the data set, whose classes and splits differ."""
    count = min(count, len(shards))
    return [shards[i * len(shards) // count] for i in range(count)]
