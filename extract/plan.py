"""What to extract, and how."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from avcil.cache.schema import Storage
from avcil.cache.storage.base import is_url
from avcil.extract.datasets.base import Dataset
from avcil.extract.decode.media import Sampling, Silent
from avcil.extract.encoders import absolute
from avcil.extract.encoders.base import Encoder, Precision


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How to extract; only `seconds`, `visual_rate_hz` and `precision` change a token."""

    seconds: float
    """Nominal length of a clip."""
    visual_rate_hz: float
    """Frames per second that become visual tokens."""
    precision: Precision = "auto"
    """Precision of the encoder; auto chooses what suits its device."""
    workers: int = 2
    """Decoding processes for each encoder."""
    processes: int = 1
    """Encoding processes on one machine, which share its memory."""
    max_failures: float = 0.05
    """Largest fraction of clips allowed to fail before extraction stops."""
    tolerated_failures: int = 20
    """This many clips may always fail, even in a small data set."""
    shard_clips: int | None = None
    """Clips per shard; None lets the cache choose."""
    storage: Storage | None = None
    """How numbers are stored; None keeps that of the cache, or chooses float16 for a new one."""
    retry_failed: bool = False
    """Whether to try clips again that failed in an earlier run."""
    limit: int | None = None
    """Stop after this many clips (a trial); only complete shards are written."""
    silent: Silent = "refuse"
    """Whether a clip without an audio track fails, or is encoded as silence, with a note."""
    patience_s: float = 120.0
    """Seconds after which to give up decoding a file."""

    def sampling(self, encoder: Encoder) -> Sampling:
        """Return what to take from each file for an encoder."""
        return Sampling(
            seconds=self.seconds,
            visual_rate_hz=self.visual_rate_hz,
            sample_rate=encoder.sample_rate,
            resizing=encoder.resizing,
            silent=self.silent,
        )


@dataclass(frozen=True, slots=True)
class EncoderChoice:
    """An encoder by name, so that another process can load it; see `load_encoder`."""

    name: str
    kept: Path

    def load(self, device: str) -> Encoder:
        """Load it onto a device, such as "cuda:1"."""
        import torch

        from avcil.extract.encoders import load_encoder

        chosen = torch.device(device)
        if chosen.type == "cuda" and chosen.index is not None:
            torch.cuda.set_device(chosen)  # for code that names no device, such as compiled kernels
        return load_encoder(self.name, chosen, self.kept)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to extract, and how; can be pickled for workers in other processes."""

    dataset: Dataset
    encoder: EncoderChoice
    path: Path | str
    """The cache, which every worker sees at this path or URL."""
    settings: Settings

    def absolute(self) -> Plan:
        """Return the same plan with absolute paths, for processes in other working directories."""
        clips = [replace(clip, path=clip.path.absolute()) for clip in self.dataset.clips]
        return replace(
            self,
            dataset=replace(self.dataset, clips=tuple(clips)),
            encoder=EncoderChoice(absolute(self.encoder.name), self.encoder.kept.absolute()),
            path=self.path if is_url(self.path) else Path(self.path).absolute(),
        )
