"""What is written is what is read, in whatever order and however often it is asked for."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import avcil.cache
from avcil.cache.reader import FeatureStore
from avcil.cache.schema import (
    CacheIncomplete,
    CacheNotFound,
    Clips,
    Encoding,
    Failure,
    Manifest,
    SchemaMismatch,
    Split,
    Storage,
    Tokens,
)
from avcil.cache.writer import CacheWriter

CLASSES = ("dog", "violin", "Straße")
ENCODING = Encoding(
    encoder="fake",
    fingerprint="f1",
    visual_tokens=6,
    visual_width=80,
    audio_tokens=5,
    audio_width=4,
    visual_rate_hz=25.0,
    audio_rate_hz=25.0,
    seconds=0.24,
)


def manifest(clips: int = 40) -> Manifest:
    splits: tuple[Split, ...] = ("train", "train", "val", "test")
    rows = [(splits[i % 4], i % 3, f"clip-ä{i:03d}") for i in range(clips)]
    return Manifest.of("fake", CLASSES, rows)


def tokens_of(row: int) -> Tokens:
    rng = np.random.default_rng(row)
    visual = rng.normal(size=(1 + row % 6, 80)).astype(np.float32)
    return Tokens(visual=visual, audio=rng.normal(size=(1 + row % 5, 4)).astype(np.float32))


def fill(path: Path, shards: Sequence[int] | None = None, storage: Storage | None = None) -> Path:
    """Write a cache whose row 7 has failed."""
    with CacheWriter.open(path, manifest(), ENCODING, storage=storage) as writer:
        for shard in writer.pending() if shards is None else shards:
            tokens = [
                Failure("no audio") if row == 7 else tokens_of(row) for row in writer.rows(shard)
            ]
            writer.commit(shard, tokens)
    return path


def padded(row: int) -> tuple[np.ndarray, np.ndarray]:
    tokens = tokens_of(row)
    visual, audio = np.zeros((6, 80), np.float16), np.zeros((5, 4), np.float16)
    visual[: len(tokens.visual)] = tokens.visual
    audio[: len(tokens.audio)] = tokens.audio
    return visual, audio


@pytest.mark.parametrize("rows", [[0], [3, 4, 5], [39, 0, 8, 9, 8, 8], [], list(range(8, 40))])
def test_load_gives_the_clips_in_the_order_asked_for(tmp_path: Path, rows: list[int]) -> None:
    store = avcil.cache.open(fill(tmp_path / "c"))
    clips = store.load(rows)
    assert clips.visual.shape == (len(rows), 6, 80)
    for i, row in enumerate(rows):
        visual, audio = padded(row)
        np.testing.assert_array_equal(clips.visual[i], visual)
        np.testing.assert_array_equal(clips.audio[i], audio)
        assert clips.visual_lengths[i] == 1 + row % 6
        assert clips.labels[i] == manifest().labels[row]
