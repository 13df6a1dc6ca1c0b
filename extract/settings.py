"""How to extract: what the pipeline is told besides clips, encoder and cache."""

from __future__ import annotations

from dataclasses import dataclass

from avcil.cache.schema import Storage
from avcil.extract.encoders.base import Precision
from avcil.extract.media import Sampling, Silent


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How to extract; only `seconds`, `visual_rate_hz` and `precision` change a token."""

    seconds: float
    """Nominal length of a clip."""
    visual_rate_hz: float
    """Frames that become visual tokens, a second."""
    precision: Precision = "auto"
    """Of the encoder; auto is what suits its device."""
    workers: int = 2
    """Processes that decode."""
    processes: int = 1
    """Processes that encode on one machine and share its memory."""
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
    limit: int | None = None
    """Clips of a trial, after which extraction ends; shards that are whole by then are written."""

    silent: Silent = "refuse"
    """What becomes of a clip without an audio track: a failure, or silence and a note of it."""
    patience_s: float = 120.0
    """A file that takes longer to decode is given up."""

    def sampling(self, sample_rate: int) -> Sampling:
        """Return what to take from each file for an encoder that hears this many samples/s."""
        return Sampling(
            seconds=self.seconds,
            visual_rate_hz=self.visual_rate_hz,
            sample_rate=sample_rate,
            silent=self.silent,
        )
