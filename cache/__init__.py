"""Tokens on disk: a Zarr v3 group, written once, shard by shard.

import avcil.cache

store = avcil.cache.open("data/ave/features.zarr")
clips = store.load(store.rows("train", labels=[0, 1]))
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from avcil.cache.reader import FeatureStore


def open(path: Path | str, *, complete: bool = True) -> FeatureStore:
    """Open a cache for reading; see FeatureStore.open."""
    from avcil.cache.reader import FeatureStore  # late: zarr takes half a second to import

    return FeatureStore.open(path, complete=complete)
