"""A cache as a torch Dataset, for your own training loops.

    rows = store.rows("train")
    batches = BatchSampler(RandomSampler(range(len(rows))), batch_size=64, drop_last=False)
    for batch in DataLoader(ClipDataset(store, rows), sampler=batches, batch_size=None):
        batch["visual"]                                  # [64, Tv, Dv] float16

With `batch_size=None` the DataLoader passes each list of rows from the sampler to the dataset
unchanged, so a batch is one read into one tensor. Without it, each batch is copied once more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import Dataset

from avcil.cache.reader import FeatureStore


class ClipDataset(Dataset[dict[str, Tensor]]):
    """Clips of a cache: `visual`, `audio`, `visual_length`, `audio_length`, `label`, `row`."""

    def __init__(self, store: FeatureStore, rows: ArrayLike) -> None:
        """Select the clips of `rows` [B], in this order."""
        self.store = store
        self.rows = np.asarray(rows, np.int64)

    def __len__(self) -> int:
        """Return B."""
        return len(self.rows)

    def __getitem__(self, index: int | Sequence[int]) -> dict[str, Tensor]:
        """Return one clip, or for a list of positions a batch with a leading dimension."""
        if isinstance(index, Sequence):
            return self._batch(list(index))
        return {name: values[0] for name, values in self._batch([index]).items()}

    def __getitems__(self, indices: list[int]) -> list[dict[str, Tensor]]:
        """Return several clips from a single read; a DataLoader calls this."""
        batch = self._batch(indices)
        return [{name: values[i] for name, values in batch.items()} for i in range(len(indices))]

    def _batch(self, indices: list[int]) -> dict[str, Tensor]:
        rows = self.rows[indices]
        clips = self.store.load(rows)
        return {
            "visual": torch.from_numpy(clips.visual),
            "audio": torch.from_numpy(clips.audio),
            "visual_length": torch.from_numpy(clips.visual_lengths),
            "audio_length": torch.from_numpy(clips.audio_lengths),
            "label": torch.from_numpy(clips.labels),
            "row": torch.from_numpy(rows),
        }
