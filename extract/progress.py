"""Count the clips of an extraction as they are done."""

from __future__ import annotations

import time
from collections import Counter, defaultdict

from avcil.extract.errors import TooManyFailures
from avcil.extract.plan import Settings
from avcil.runtime.progress import Bar, log


class Progress:
    """Counts clips as they are done, shows the progress, and stops a run in which too many fail."""

    def __init__(self, settings: Settings, clips: int, bar: Bar, failed: int = 0) -> None:
        """Start to count.

        Args:
            settings: how many clips may fail.
            clips: number of clips of the whole data set.
            bar: advanced by each clip.
            failed: clips that failed in an earlier run.
        """
        self._settings, self._clips, self._bar = settings, clips, bar
        self.encoded, self.failed = 0, failed
        self.by_worker: Counter[str] = Counter()
        """Clips encoded or failed, by the name of the worker."""
        self._by_shard: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self._done, self._times_s = 0, [time.monotonic()]  # start, first clip, latest clip

    @property
    def clips_per_s(self) -> float:
        """Clips per second since the first clip was done; until then the pipeline is filling."""
        if not self._done:
            return 0.0
        before, now = self._times_s[-2:]  # after a single clip: since the start
        return max(1, self._done - 1) / max(now - before, 1e-9)

    def add_encoded(self, shard: int, worker: str) -> None:
        """Count a clip that was encoded."""
        self.encoded += 1
        self._by_shard[shard]["encoded"] += 1
        self._advance(worker)

    def add_failed(self, shard: int, worker: str, clip: str, reason: str) -> None:
        """Count a clip that failed.

        Raises:
            TooManyFailures: more than the settings allow.
        """
        self.failed += 1
        self._by_shard[shard]["failed"] += 1
        log(f"{clip}: {reason}")
        self._advance(worker)
        settings = self._settings
        if self.failed > max(settings.tolerated_failures, settings.max_failures * self._clips):
            raise TooManyFailures(
                f"{self.failed} of {self._clips} clips failed, the last ({clip!r}) because: "
                f"{reason}; if that is expected, run again with a higher --max-failures"
            )

    def forget(self, shard: int, worker: str) -> None:
        """Subtract the clips of a shard that was lost before it was written."""
        lost = self._by_shard.pop(shard, Counter())
        self.encoded -= lost["encoded"]
        self.failed -= lost["failed"]
        self._done -= lost.total()
        self.by_worker[worker] -= lost.total()
        self._bar.advance(-lost.total())

    def _advance(self, worker: str) -> None:
        self._times_s[2 if self._done else 1 :] = [time.monotonic()]
        self._done += 1
        self.by_worker[worker] += 1
        self._bar.advance(note=f"{self.failed} failed" if self.failed else "")
