"""A small, reproducible cache of random tokens for examples, tests and experiments.

avcil.cache.samples.write_sample("sample.zarr")
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from avcil.cache.schema import Encoding, Failure, Manifest, Split, Storage, Tokens
from avcil.cache.writer import CacheWriter

CLASSES = ("Straßenmusik", "dog", "violin")
FAILED = 7
"""The row that has no tokens."""
ENCODING = Encoding(
    encoder="sample",
    fingerprint="sample-1",
    random_weights=True,
    visual_tokens=6,
    visual_width=80,
    audio_tokens=5,
    audio_width=8,
    visual_rate_hz=2.0,
    audio_rate_hz=2.0,
    seconds=3.0,
    unit_norm=("audio",),
)


def sample_manifest(clips: int = 40) -> Manifest:
    """List clips of three classes: half train, a quarter val, a quarter test."""
    splits: tuple[Split, ...] = ("train", "train", "val", "test")
    rows: list[tuple[Split, int, str]] = [
        (splits[i % 4], i % 3, f"clip-{i:03d}") for i in range(clips)
    ]
    return Manifest.of("sample", CLASSES, rows)


def sample_tokens(row: int, encoding: Encoding = ENCODING) -> Tokens:
    """Return the same random tokens for a row each time; lengths vary, audio has norm 1."""
    rng = np.random.default_rng(row)
    visual = (1 + row % encoding.visual_tokens, encoding.visual_width)
    audio = rng.normal(size=(1 + row % encoding.audio_tokens, encoding.audio_width))
    audio /= np.linalg.norm(audio, axis=1, keepdims=True)
    return Tokens(visual=rng.normal(size=visual).astype(np.float32), audio=audio.astype(np.float32))


def sample_item(row: int) -> Tokens | Failure:
    """Return the result of extracting one row: tokens, or the failure of row 7."""
    return Failure("no audio stream") if row == FAILED else sample_tokens(row)


def write_sample(
    path: Path | str, *, shards: Iterable[int] | None = None, storage: Storage | None = None
) -> Path:
    """Write the pending shards of the sample, or only the given ones; row 7 has failed."""
    with CacheWriter.open(path, sample_manifest(), ENCODING, storage=storage) as writer:
        for shard in writer.pending() if shards is None else shards:
            writer.commit(shard, [sample_item(row) for row in writer.rows(shard)])
    return Path(path)
