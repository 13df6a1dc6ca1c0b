"""Coordinate an extraction, from files to a cache; resume where an earlier run stopped.

One loop serves all workers, whether they are this process, several processes or actors on a Ray
cluster: it hands out shards, counts clips, and replaces workers that are lost.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path

from avcil.cache.storage.base import is_url
from avcil.cache.writer import CacheWriter
from avcil.extract.datasets.base import Dataset
from avcil.extract.devices import ThisProcess
from avcil.extract.encoders.base import Encoder
from avcil.extract.errors import EncoderError, NoRoom, WorkersLost
from avcil.extract.events import (
    Broken,
    Encoded,
    Event,
    Failed,
    Finished,
    Idle,
    Lost,
    Ready,
    Shard,
    Workers,
)
from avcil.extract.plan import Settings
from avcil.extract.progress import Progress
from avcil.runtime.progress import log, track

MOST_SHARDS = 8
"""Shards given at once to one of several workers, which decodes ahead within these."""

MOST_DEATHS = 3
"""How many processes may die at the same shard, or while loading the encoder."""


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
    """Clips per second of this run, without the time until the first was done."""
    left: int = 0
    """Clips still to be encoded after a trial; it does not keep those of incomplete shards."""
    clip_bytes: int
    """Size of a clip on disk, uncompressed."""

    @property
    def is_trial(self) -> bool:
        """Whether the cache is still incomplete."""
        return self.left > 0


def extract(dataset: Dataset, encoder: Encoder, path: Path | str, settings: Settings) -> Summary:
    """Encode, in this process, every clip of a data set that its cache does not hold yet.

    Args:
        dataset: the clips.
        encoder: encodes them.
        path: the cache, a folder or a URL; created if it does not exist.
        settings: see Settings.

    Raises:
        TooManyFailures, NoRoom, CacheError: see `coordinate`.
    """
    return coordinate(ThisProcess(dataset, encoder, settings), dataset, path, settings)


def coordinate(workers: Workers, dataset: Dataset, path: Path | str, settings: Settings) -> Summary:
    """Encode every clip that the cache does not hold yet, and end the workers.

    Args:
        workers: encode the clips.
        dataset: the clips.
        path: the cache, a folder or a URL; created if it does not exist.
        settings: see Settings.

    Raises:
        TooManyFailures: more clips failed than the settings allow; written shards are kept.
        NoRoom: the tokens do not fit on the disk.
        WorkersLost: workers died repeatedly.
        ExtractError: the encoder cannot be loaded, or is not the same on all devices.
        CacheError: the cache cannot be written, or was made from other clips or otherwise.
    """
    start = time.monotonic()
    try:
        first = _first_ready(workers)
        with CacheWriter.open(
            path,
            dataset.manifest(),
            first.encoding,
            shard_clips=settings.shard_clips,
            storage=settings.storage,
        ) as writer:
            if settings.retry_failed:
                writer.retry_failed()
            progress = _Extraction(workers, first, writer, settings).run(path)
            return Summary(
                path=path,
                clips=len(dataset.clips),
                encoded=progress.encoded,
                failures=writer.failures,
                duration_s=time.monotonic() - start,
                clips_per_s=progress.clips_per_s,
                left=_clips_left(writer),
                clip_bytes=writer.clip_bytes,
            )
    finally:
        workers.close()


def _first_ready(workers: Workers) -> Ready:
    """Start one worker, which downloads the weights for all and describes the tokens."""
    for _ in range(MOST_DEATHS):
        workers.start(0)
        ((_, event),) = workers.wait()
        match event:
            case Ready() as ready:
                return ready
            case Broken(error):
                raise error
            case Lost(reason):
                log(f"a process ended while it loaded the encoder ({reason})")
    raise WorkersLost(
        f"{MOST_DEATHS} processes ended while they loaded the encoder; see above, and check that "
        "there is enough memory"
    )


class _Extraction:
    """The shards still to be written, and the workers that encode them."""

    def __init__(
        self, workers: Workers, first: Ready, writer: CacheWriter, settings: Settings
    ) -> None:
        self._workers, self._first, self._writer, self._settings = workers, first, writer, settings
        self._waiting = deque(_shards(writer, settings.limit))
        self._given: dict[int, list[Shard]] = {}  # by worker: shards that are not finished
        self._names = {0: first.name}
        # By what was under way: a machine that is lost takes all its workers with it, once each.
        self._losses: Counter[str] = Counter()

    def run(self, path: Path | str) -> Progress:
        """Encode every shard, and log at the end how many clips each worker encoded."""
        writer, pending = self._writer, len(self._writer.pending())
        if pending < writer.shards:
            kept = writer.shards - pending
            log(f"{kept} of {writer.shards} shards are kept from an earlier run")
        check_room(path, sum(shard.clips for shard in self._waiting), writer.clip_bytes)
        clips = sum(len(writer.rows(shard)) for shard in range(writer.shards))
        try:
            done = clips - _clips_left(writer)
            with track("extracting", clips, "clips", done=done) as bar:
                progress = Progress(self._settings, clips, bar, failed=len(writer.failures))
                self._encode(progress)
        except KeyboardInterrupt:
            self._workers.close()  # shards that are encoded are written first
            written = writer.shards - len(writer.pending())
            told = (
                f"stopped: {written} of {writer.shards} shards are written; run again to continue"
            )
            log(told)
            raise KeyboardInterrupt(told) from None
        finally:
            self._workers.close()  # before others may write the cache
        if self._losses:
            writer.sweep()
        if self._workers.size > 1:
            for name, count in sorted(progress.by_worker.items()):
                log(f"{name}: {count} clips")
        return progress

    def _encode(self, progress: Progress) -> None:
        others = range(1, min(self._workers.size, len(self._waiting)))
        self._give(0)
        for worker in others:
            self._workers.start(worker)
        while self._waiting or any(self._given.values()):
            for worker, event in self._workers.wait():
                self._handle(worker, event, progress)

    def _handle(self, worker: int, event: Event, progress: Progress) -> None:
        match event:
            case Ready():
                self._names[worker] = event.name
                self._losses.pop(_loading(worker), None)
                if event.encoding != self._first.encoding:
                    raise EncoderError(
                        f"{event.name} makes other tokens than {self._first.name}: use the same "
                        "weights, kind of device and --precision for all workers"
                    )
                self._give(worker)
            case Encoded(shard):
                progress.add_encoded(shard, self._names[worker])
            case Failed(shard, clip, reason):
                progress.add_failed(shard, self._names[worker], clip, reason)
            case Finished(number):
                self._given[worker] = [s for s in self._given[worker] if s.number != number]
                self._writer.refresh(number)
            case Idle():
                assert not self._given[worker], "a worker is idle that has not finished all shards"
                self._give(worker)
            case Lost(reason):
                self._replace(worker, reason, progress)
            case Broken(error):
                raise error

    def _give(self, worker: int) -> None:
        """Give a worker some shards, fewer towards the end, so that all workers finish together."""
        count = len(self._waiting)
        if self._workers.size > 1:
            count = min(count, MOST_SHARDS, 1 + count // (3 * self._workers.size))
        self._given[worker] = [self._waiting.popleft() for _ in range(count)]
        if count:
            self._workers.give(worker, self._given[worker], self._writer)

    def _replace(self, worker: int, reason: str, progress: Progress) -> None:
        """Give the shards of a lost worker to others; the one it was encoding may be the cause."""
        given = self._given.pop(worker, [])
        shards = [shard for shard in given if not self._is_written(shard)]
        for shard in shards:
            progress.forget(shard.number, self._names[worker])
        cause = f"at shard {shards[0].number}" if shards else _loading(worker)
        self._losses[cause] += 1
        name = self._names.get(worker, "a process")
        if self._losses[cause] == MOST_DEATHS:
            raise WorkersLost(
                f"{MOST_DEATHS} processes ended {cause}, the last on {name} ({reason}); if "
                "memory ran out, try fewer --workers; run the same command again to continue"
            )
        log(f"{name}: its process ended {cause} ({reason}); another one continues")
        self._waiting.extendleft(reversed(shards))
        if self._waiting:
            self._workers.start(worker)

    def _is_written(self, shard: Shard) -> bool:
        """Return whether a lost worker wrote a shard without reporting it."""
        if self._settings.retry_failed:
            return False  # the written shard may be from the earlier run
        self._writer.refresh(shard.number)
        return not self._writer.todo(shard.number)


def _loading(worker: int) -> str:
    return f"while worker {worker} loaded the encoder"


def _shards(writer: CacheWriter, limit: int | None) -> list[Shard]:
    """Return the shards to encode: all that are not written yet, or those of a trial."""
    pending = writer.pending()
    left = _clips_left(writer) if limit is None else min(limit, _clips_left(writer))
    if left < _clips_left(writer):
        # spread over the data set, since classes and splits differ
        count = min(-(-left // writer.shard_clips), len(pending))
        pending = [pending[i * len(pending) // count] for i in range(count)]
    shards = []
    for number in pending:
        shards.append(Shard(number, min(left, len(writer.todo(number)))))
        left -= shards[-1].clips
    return shards


def _clips_left(writer: CacheWriter) -> int:
    """Return how many clips are still to be encoded."""
    return sum(len(writer.todo(shard)) for shard in writer.pending())


def free_bytes(path: Path | str) -> int | None:
    """Return the free space on the disk of a cache, or None for a bucket."""
    return None if is_url(path) else shutil.disk_usage(path).free


def check_room(path: Path | str, clips: int, clip_bytes: int) -> None:
    """Check that the tokens of these clips fit on the disk.

    Raises:
        NoRoom: they do not.
    """
    free, needed = free_bytes(path), clips * clip_bytes
    if free is not None and needed > free:
        raise NoRoom(
            f"the tokens of {clips} clips need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are "
            f"free at {path}: make room, choose another disk with --cache, or begin a new cache "
            "with --numbers int8, which takes half"
        )
