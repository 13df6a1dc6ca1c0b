"""From files to a cache on one device; go on after a kill."""

from __future__ import annotations

import shutil
import time
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path

from avcil.cache.schema import Encoding, Failure
from avcil.cache.storage.base import is_url
from avcil.cache.writer import CacheWriter
from avcil.extract.datasets.base import Dataset
from avcil.extract.encoders.base import Encoder
from avcil.extract.errors import EncoderError, NoRoom, TooManyFailures, WorkersLost
from avcil.extract.events import Broken, Committed, Crew, Event, Idle, Lost, Ready
from avcil.extract.plan import Plan, Settings
from avcil.extract.worker import encode_shards
from avcil.runtime.progress import Bar, log, track


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


MOST_SHARDS = 8  # given at once: decoding runs ahead within what is given


LOSSES = 3  # so often may one shard end the process that works on it


def extract_with(crew: Crew, plan: Plan) -> Summary:
    """Encode every clip that the cache does not hold yet, with a crew that is ended afterwards.

    Raises:
        TooManyFailures: more clips failed than the settings allow; written shards stay.
        NoRoom: the disk is too small for what is to be written.
        WorkersLost: members of the crew end again and again.
        ExtractError: the encoder cannot be loaded, or is not the same on all devices.
        CacheError: the cache cannot be written, or was made from other clips or otherwise.
    """
    start = time.monotonic()
    try:
        first = _first(crew)
        with _open(plan, first.encoding) as writer:
            run = _Run(crew, plan, first, writer)
            try:
                tally = run.run()
            except KeyboardInterrupt:
                written = writer.shards - len(writer.pending())
                log(f"stopped: {written} of {writer.shards} shards are written; run again to go on")
                raise
            return Summary(
                path=plan.path,
                clips=len(plan.dataset.clips),
                encoded=tally.encoded,
                failures=writer.failures,
                duration_s=time.monotonic() - start,
                clips_per_s=tally.clips_per_s,
                clip_bytes=writer.clip_bytes,
            )
    finally:
        crew.close()


def _first(crew: Crew) -> Ready:
    """Start one member, which tells what tokens it makes, and fetches weights for all."""
    for _ in range(LOSSES):
        crew.start(0)
        ((_, event),) = crew.wait()
        if isinstance(event, Broken):
            raise event.error
        if isinstance(event, Ready):
            return event
        why = f" ({event.why})" if isinstance(event, Lost) else ""
        log(f"a process ended while it loaded the encoder{why}")
    raise WorkersLost(
        f"{LOSSES} processes ended while they loaded the encoder; see above, and look for a lack "
        "of memory"
    )


def _open(plan: Plan, encoding: Encoding) -> CacheWriter:
    settings = plan.settings
    writer = CacheWriter.open(
        plan.path,
        plan.dataset.manifest(),
        encoding,
        shard_clips=settings.shard_clips,
        storage=settings.storage,
    )
    if settings.retry_failed:
        writer.retry_failed()
    return writer


class _Run:
    """The shards that are still to be written, and who has them."""

    def __init__(self, crew: Crew, plan: Plan, first: Ready, writer: CacheWriter) -> None:
        self._crew, self._plan, self._first, self._writer = crew, plan, first, writer
        self._queue = deque(writer.pending())
        self._given: dict[int, list[int]] = {}  # by member: shards that it has not reported
        self._names = {0: first.name}
        self._losses: Counter[int | None] = Counter()  # by shard; None: while loading
        self._clips: Counter[str] = Counter()  # by device

    def run(self) -> Tally:
        """Write every shard, and say at the end who did how much; see extract_with."""
        pending, shards = len(self._queue), self._writer.shards
        if pending < shards:
            log(f"{shards - pending} of {shards} shards are kept from an earlier run")
        left, clips = count_left(self._writer), len(self._plan.dataset.clips)
        check_room(self._plan.path, left, self._writer.clip_bytes)
        with track("extracting", clips, "clips", done=clips - left) as bar:
            tally = Tally(self._plan.settings, clips, bar, failed=len(self._writer.failures))
            self._give(0)
            for member in range(1, min(self._crew.size, pending)):
                self._crew.start(member)
            while self._queue or any(self._given.values()):
                for member, event in self._crew.wait():
                    self._handle(member, event, tally)
        if self._losses:
            self._writer.sweep()
        for name, count in sorted(self._clips.items()):
            log(f"{name}: {count} clips")
        return tally

    def _handle(self, member: int, event: Event, tally: Tally) -> None:
        match event:
            case Ready():
                self._names[member] = event.name
                self._check(event)
                self._give(member)
            case Committed():
                self._count(member, event, tally)
            case Idle():
                assert not self._given[member], "a member is idle that has not reported all"
                self._give(member)
            case Lost():
                self._replace(member, event.why)
            case Broken():
                raise event.error

    def _give(self, member: int) -> None:
        """Give a member some shards: fewer towards the end, so that all end together."""
        most = min(MOST_SHARDS, 1 + len(self._queue) // (3 * self._crew.size))
        shards = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
        self._given[member] = shards
        if shards:
            self._crew.give(member, shards)

    def _count(self, member: int, done: Committed, tally: Tally) -> None:
        self._given[member].remove(done.shard)
        self._writer.refresh(done.shard)
        self._clips[self._names[member]] += done.encoded + len(done.failures)
        for _ in range(done.encoded):
            tally.add_encoded()
        for clip, reason in done.failures.items():
            tally.add_failed(clip, Failure(reason))

    def _replace(self, member: int, why: str) -> None:
        """Let others do what a lost member had; the shard that it was at may be the cause."""
        shards = self._given.pop(member, [])
        cause = shards[0] if shards else None
        self._losses[cause] += 1
        what = "while it loaded the encoder" if cause is None else f"at shard {cause}"
        name = self._names.get(member, "a process")
        if self._losses[cause] == LOSSES:
            raise WorkersLost(
                f"{LOSSES} processes ended {what}, the last on {name} ({why}); look for a lack of "
                "memory (fewer --workers), then run the same command again"
            )
        log(f"{name}: its process ended {what} ({why}); another goes on")
        self._queue.extendleft(reversed(shards))
        if self._queue:
            self._crew.start(member)

    def _check(self, member: Ready) -> None:
        if member.encoding != self._first.encoding:
            raise EncoderError(
                f"{member.name} makes other tokens than {self._first.name}: the same weights, the "
                "same kind of device and the same --precision must be everywhere"
            )
