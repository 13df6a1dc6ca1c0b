"""Who works on which shard: several GPUs of this machine, or the machines of a Ray cluster.

One process, this one, makes the cache and holds its lock. It hands out shards, a few at a time, and
takes notice when they are written; no token passes through it.
"""

from __future__ import annotations

import time
from collections import Counter, deque

from avcil.cache.schema import Encoding, Failure
from avcil.cache.writer import CacheWriter
from avcil.extract.crew import Broken, Committed, Crew, Event, Idle, Lost, Plan, Ready
from avcil.extract.errors import EncoderError, WorkersLost
from avcil.extract.job import Tally
from avcil.extract.pipeline import Summary, check_room, count_left
from avcil.progress import log, track

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
