"""A small cache that heads can learn from in a second, and one in which some clips are missing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avcil.cache.reader import FeatureStore
from avcil.cache.schema import Clips, Encoding, Manifest, Split, Tokens
from avcil.cache.writer import CacheWriter

TOY = Encoding(
    encoder="toy",
    fingerprint="f" * 16,
    random_weights=True,
    visual_tokens=4,
    visual_width=12,
    audio_tokens=5,
    audio_width=8,
    visual_rate_hz=2.0,
    audio_rate_hz=2.5,
    seconds=2.0,
)
CLASSES = ("bell", "cello", "dog", "engine", "flute", "goat")
COUNTS: dict[Split, int] = {"train": 12, "val": 4, "test": 5}


def toy_manifest(dataset: str = "toy") -> Manifest:
    """List the clips of six classes."""
    clips = [
        (split, label, f"{name}-{split}-{number}")
        for split, count in COUNTS.items()
        for label, name in enumerate(CLASSES)
        for number in range(count)
    ]
    return Manifest.of(dataset, CLASSES, clips)


def toy_tokens(label: int, rng: np.random.Generator) -> Tokens:
    """Return tokens whose class shows in both modalities, below noise."""
    prototypes = np.random.default_rng(label)
    visual = prototypes.normal(size=12) + 0.8 * rng.normal(size=(4, 12))
    audio = prototypes.normal(size=8) + 0.8 * rng.normal(size=(5, 8))
    return Tokens(visual, audio)


def write_toy_cache(path: Path, manifest: Manifest | None = None) -> Path:
    """Write the tokens of these clips, and return the path."""
    manifest, rng = manifest or toy_manifest(), np.random.default_rng(0)
    with CacheWriter.open(path, manifest, TOY) as writer:
        for shard in writer.pending():
            clips = [toy_tokens(int(manifest.labels[row]), rng) for row in writer.rows(shard)]
            writer.commit(shard, clips)
    return path


class PoisonedStore:
    """A store in which some clips are NaN, which no cache on disk can hold."""

    def __init__(self, store: FeatureStore, ids: Iterable[str]) -> None:
        self.store = store
        bad = set(ids)
        self.bad = np.array([clip in bad for clip in store.manifest.ids])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def load(self, rows: NDArray[np.int64], *, out: Clips | None = None) -> Clips:
        """Return clips as the store does; the missing ones are NaN."""
        clips = self.store.load(rows, out=out)
        clips.visual[self.bad[rows]] = np.nan
        clips.audio[self.bad[rows]] = np.nan
        return clips
