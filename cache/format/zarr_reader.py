"""Read buckets and compressed shards through zarr-python, in sorted runs of rows.

Only slices are used: on a sharded array, index arrays, masks and `oindex` need 24 times the memory
of their result. Zarr returns its fill value for a missing shard, so every clip's checksum is
compared with the record here too.

Shapes: B requested rows; [T, D] one clip's chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray

from avcil.cache.format.quantize import ArraySpec
from avcil.cache.format.shard_reader import Checksums, Damage, damage
from avcil.cache.storage.base import Files
from avcil.cache.storage.local import readable

RUN_BYTES = 8 << 20


class ZarrReader:
    """One array of a cache, read by zarr-python."""

    def __init__(
        self, files: Files, spec: ArraySpec, checksums: Checksums, name: Callable[[int], str]
    ) -> None:
        self._where = f"{files.where}/{spec.name}"
        with readable(self._where):
            self._array = zarr.open_array(files.store, path=spec.name, mode="r")
        self._spec, self._checksums, self._name = spec, checksums, name

    def read(self, rows: NDArray[np.int64], out: NDArray[np.generic]) -> None:
        """Fill `out` [B, T, D] with the clips of `rows` [B] in any order.

        Raises:
            ShardDamaged: a clip cannot be read; the content of `out` is undefined.
        """
        order = np.argsort(rows, kind="stable")
        for run in self._runs(rows[order]):
            first, last = int(rows[order[run.start]]), int(rows[order[run.stop - 1]])
            clips = self._slice(first, last + 1)
            for i in order[run]:
                out[i] = clips[rows[i] - first]

    def _runs(self, ordered: NDArray[np.int64]) -> Iterator[slice]:
        """Split ascending rows into runs without gaps of at most RUN_BYTES."""
        most = max(1, RUN_BYTES // self._spec.chunk_bytes)
        first = 0
        for i in range(1, len(ordered) + 1):
            if i == len(ordered) or ordered[i] > ordered[i - 1] + 1 or i - first == most:
                yield slice(first, i)
                first = i

    def _slice(self, first: int, stop: int) -> NDArray[np.generic]:
        try:
            with readable(self._where):
                clips = np.ascontiguousarray(self._array[first:stop])
        except (ValueError, RuntimeError) as error:  # what zarr's codecs raise on damaged bytes
            raise self._damaged(first, f"a clip from here to row {stop - 1}: {error}") from error
        for row, clip in enumerate(clips, first):
            computed = google_crc32c.value(clip.tobytes())
            if computed != self._checksums[row]:
                raise self._damaged(row, "it is missing, or not the clip that was committed")
        return clips

    def _damaged(self, row: int, what: str) -> Damage:
        return damage(self._where, self._name(row), what)
