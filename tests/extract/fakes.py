"""An encoder without weights, and an extraction with it in a process of its own."""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from avcil.cache.reader import FeatureStore
from avcil.cache.schema import Encoding, Tokens
from avcil.extract.encoders.base import Encoder, Media
from avcil.extract.pipeline import extract
from avcil.extract.plan import Settings

SETTINGS = Settings(seconds=2, visual_rate_hz=8, workers=2, shard_clips=4)


class MeanEncoder(Encoder):
    """The mean colour of a frame, and the loudness of 640 samples."""

    def __init__(self, name: str = "mean", pause_s: float = 0.0) -> None:
        self.name, self.pause_s, self.encoded = name, pause_s, 0

    @property
    def sample_rate(self) -> int:
        return 16_000

    @property
    def resizing(self) -> None:
        return None

    def encoding(self, *, seconds: float, visual_rate_hz: float) -> Encoding:
        return Encoding(
            encoder=self.name, fingerprint=f"{self.name} {seconds} {visual_rate_hz}",
            visual_tokens=round(seconds * visual_rate_hz), visual_width=3,
            audio_tokens=round(seconds * 25), audio_width=1, visual_rate_hz=visual_rate_hz,
            audio_rate_hz=25, seconds=seconds,
        )  # fmt: skip

    def encode(self, clips: Sequence[Media]) -> list[Tokens]:
        time.sleep(self.pause_s)
        self.encoded += len(clips)
        return [self._encode(clip) for clip in clips]

    def _encode(self, clip: Media) -> Tokens:
        loudness = clip.waveform.reshape(-1, 640).std(axis=1)
        return Tokens(clip.frames.mean(axis=(1, 2))[clip.frame_index], loudness[:, None])


def assert_equal_caches(one: Path | str, other: Path | str) -> None:
    first, second = FeatureStore.open(one), FeatureStore.open(other)
    assert np.array_equal(first.status, second.status)
    clips, expected = first.load(first.rows()), second.load(second.rows())
    for name in ("visual", "audio", "visual_lengths", "audio_lengths", "labels"):
        assert np.array_equal(getattr(clips, name), getattr(expected, name)), name


if __name__ == "__main__":
    dataset, cache = map(Path, sys.argv[1:])
    extract(pickle.loads(dataset.read_bytes()), MeanEncoder(pause_s=0.02), cache, SETTINGS)
