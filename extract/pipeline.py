"""From files to a cache on one device; go on after a kill."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from avcil.cache.writer import CacheWriter
from avcil.extract.datasets.base import Dataset
from avcil.extract.encoders.base import Encoder
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


def extract(dataset: Dataset, encoder: Encoder, path: Path | str, settings: Settings) -> Summary:
    """Encode every clip of a data set that its cache does not hold yet.

    Args:
        dataset: the clips.
        encoder: what makes their tokens.
        path: the cache, a folder or URL, made if it is not there.
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
        try:
            encoded = _write(dataset, encoder, writer, settings)
        except KeyboardInterrupt:
            written = writer.shards - len(writer.pending())
            log(f"stopped: {written} of {writer.shards} shards are written; run again to go on")
            raise
        return Summary(
            path=path,
            clips=len(manifest),
            encoded=encoded,
            failures=writer.failures,
            duration_s=time.monotonic() - start,
        )


def _write(dataset: Dataset, encoder: Encoder, writer: CacheWriter, settings: Settings) -> int:
    """Write every shard that is not written yet; return how many clips were encoded."""
    pending, clips = writer.pending(), len(dataset.clips)
    if len(pending) < writer.shards:
        kept = writer.shards - len(pending)
        log(f"{kept} of {writer.shards} shards are kept from an earlier run")
    left = sum(len(writer.todo(shard)) for shard in pending)
    with track("extracting", clips, "clips", done=clips - left) as bar:
        tally = Tally(settings, clips, bar, failed=len(writer.failures))
        encode_shards(dataset, encoder, writer, pending, settings, tally)
    return tally.encoded
