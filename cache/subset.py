"""Copy some clips of a cache into a small cache of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avcil.cache.reader import FeatureStore
from avcil.cache.schema import Manifest, Tokens
from avcil.cache.writer import CacheWriter


def copy_clips(store: FeatureStore, rows: NDArray[np.int64], path: Path) -> None:
    """Write the clips of some rows, with the tokens that `store.load` returns, as float16.

    Args:
        store: the cache; all of its classes are kept.
        rows: [B] rows that have tokens, ascending.
        path: of the new cache.

    Raises:
        CacheError: the clips cannot be read or written.
    """
    old = store.manifest
    manifest = Manifest(
        dataset=old.dataset,
        classes=old.classes,
        ids=tuple(old.ids[row] for row in rows),
        splits=tuple(old.splits[row] for row in rows),
        labels=old.labels[rows],
    )
    with CacheWriter.open(path, manifest, store.encoding, shard_clips=128) as writer:
        for shard in writer.pending():
            chosen = rows[list(writer.rows(shard))]
            clips = store.load(chosen)
            lengths = zip(clips.visual_lengths, clips.audio_lengths, strict=True)
            writer.commit(
                shard,
                [
                    Tokens(visual[:t], audio[:s], store.notes.get(old.ids[row], ""))
                    for visual, audio, (t, s), row in zip(
                        clips.visual, clips.audio, lengths, chosen, strict=True
                    )
                ],
            )
