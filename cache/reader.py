"""Read a cache: the list of clips, and the tokens of any of them.

Shapes: N clips of the data set; B requested clips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from avcil.cache.errors import CacheIncomplete
from avcil.cache.format import quantize
from avcil.cache.format.layout import Header, Status
from avcil.cache.format.load import (
    Rows,
    is_plain,
    read_header,
    read_manifest,
    read_rows,
    unfinished_shards,
)
from avcil.cache.format.quantize import MODALITIES, ArraySpec, Modality
from avcil.cache.format.shard_reader import Checksums, ShardReader
from avcil.cache.schema import Clips, Encoding, Manifest, Split
from avcil.cache.storage.base import Files
from avcil.cache.storage.open import open_files

if TYPE_CHECKING:
    import pandas

DECODE_BYTES = 8 << 20


class ArrayReader(Protocol):
    """Reads the clips of one array on disk."""

    def read(self, rows: NDArray[np.int64], out: NDArray[np.generic]) -> None:
        """Read the clips of `rows` [B] into `out` [B, ...] and verify their checksums."""


class FeatureStore:
    """The tokens of a data set, read-only. Safe to use from several threads and processes."""

    def __init__(
        self,
        header: Header,
        manifest: Manifest,
        rows: Rows,
        readers: Mapping[Modality, Sequence[ArrayReader]],
        paths: Sequence[str],
        reopen: Callable[..., FeatureStore],
    ) -> None:
        """Keep what was read; see `open`, and `avcil.cache.join.join_stores` for several caches.

        Args:
            header: of the cache.
            manifest: its clips.
            rows: the records of all shards.
            readers: by modality, for each of its arrays.
            paths: path or URL of the cache, or of each of several.
            reopen: opens the same store in another process, from `paths`.
        """
        self.paths = tuple(paths)
        self.where = " and ".join(paths)
        """The path or URL of the cache, for messages."""
        self._readers, self._reopen = readers, reopen
        self.header = header
        self.manifest = manifest
        self.encoding: Encoding = header.encoding
        self.status: NDArray[np.uint8] = rows.status  # [N] of avcil.cache.format.layout.Status
        self.lengths: dict[Modality, NDArray[np.int64]] = rows.lengths  # [N] each
        self.error = rows.error  # [N, 2] each: see avcil.cache.format.layout.Record
        self.failures: dict[str, str] = rows.failures
        """Reasons why clips have no tokens, by clip id."""
        self.notes: dict[str, str] = rows.notes
        """Remarks about tokens, by clip id, for example that the clip had no sound."""

    @classmethod
    def open(cls, path: Path | str, *, complete: bool = True) -> FeatureStore:
        """Open the cache at a path or URL.

        Args:
            path: a local folder, or a URL such as `s3://bucket/features.zarr`.
            complete: raise CacheIncomplete if the extraction is not finished.

        Raises:
            CacheNotFound: there is no cache.
            CacheUnreadable: the file system refuses to read it.
            SchemaMismatch: it is not a cache, is of another format version, or has a bad header.
            CacheIncomplete: some clips are not extracted yet.
            ShardDamaged: a record or the list of clips is damaged.
        """
        files = open_files(path)
        header = read_header(files)
        manifest = read_manifest(files, header)
        rows = read_rows(files, header)
        left = unfinished_shards(header, rows)
        if complete and left:
            raise CacheIncomplete(
                f"{files.where} is not finished: {header.shards - len(left)} of {header.shards} "
                "shards are written; run `avcil extract` again to resume"
            )
        return cls.of(files, header, manifest, rows)

    @classmethod
    def of(cls, files: Files, header: Header, manifest: Manifest, rows: Rows) -> FeatureStore:
        """Return the store of a cache whose metadata were read."""

        def describe(row: int) -> str:
            return store.describe(row)

        readers = {
            modality: [_reader(files, header, spec, rows.crc32c, describe) for spec in specs]
            for modality, specs in header.arrays.items()
        }
        store = cls(header, manifest, rows, readers, [files.where], _open_partly)
        return store

    def __reduce__(self) -> tuple[Callable[..., FeatureStore], tuple[str, ...]]:
        """Reopen the cache in the process that unpickles this, such as a worker of a DataLoader."""
        return self._reopen, self.paths

    def __len__(self) -> int:
        """Return N, the number of clips, with or without tokens."""
        return len(self.manifest)

    def rows(
        self, split: Split | None = None, labels: Iterable[int] | None = None
    ) -> NDArray[np.int64]:
        """Return the rows that have tokens, ascending.

        Args:
            split: only rows of this split.
            labels: only rows of these classes.
        """
        chosen = self.status == Status.STORED
        if split is not None:
            chosen &= np.array([each == split for each in self.manifest.splits])
        if labels is not None:
            chosen &= np.isin(self.manifest.labels, list(labels))
        return np.flatnonzero(chosen).astype(np.int64)

    def load(self, rows: ArrayLike, *, out: Clips | None = None) -> Clips:
        """Read clips into one array.

        Args:
            rows: [B] integers, in any order, repeats allowed.
            out: C-contiguous arrays to fill, for at least B clips; new ones by default. Reusing a
                buffer is several times faster than allocating memory.

        Returns:
            the clips in the order of `rows`; views of the first B of `out` if given.

        Raises:
            IndexError: a row does not exist.
            CacheIncomplete: a clip has no tokens.
            ShardMissing, ShardDamaged: its bytes are missing or differ from those written.
        """
        wanted = self._check_rows(rows)
        clips = self._empty(len(wanted)) if out is None else _first(out, len(wanted), self.encoding)
        for modality, target in zip(MODALITIES, (clips.visual, clips.audio), strict=True):
            self._read(modality, wanted, target)
        np.take(self.lengths["visual"], wanted, out=clips.visual_lengths)
        np.take(self.lengths["audio"], wanted, out=clips.audio_lengths)
        np.take(self.manifest.labels, wanted, out=clips.labels)
        return clips

    def table(self) -> pandas.DataFrame:
        """Return the rows as a table: id, split, label, class, status, lengths, shard, reason."""
        import pandas

        manifest = self.manifest
        return pandas.DataFrame(
            {
                "id": manifest.ids,
                "split": manifest.splits,
                "label": manifest.labels,
                "class": [manifest.classes[label] for label in manifest.labels],
                "status": [Status(status).name.lower() for status in self.status],
                "visual_length": self.lengths["visual"],
                "audio_length": self.lengths["audio"],
                "shard": np.arange(len(self)) // self.header.shard_clips,
                "reason": [self.failures.get(clip, "") for clip in manifest.ids],
            },
            index=pandas.RangeIndex(len(self), name="row"),
        )

    def rounding(self) -> dict[Modality, float]:
        """Return the relative rounding error by modality: |stored - true| / |true|."""
        return {
            modality: float(np.sqrt(sums[0] / sums[1])) if sums[1] else 0.0
            for modality, sums in ((name, each.sum(axis=0)) for name, each in self.error.items())
        }

    def describe(self, row: int) -> str:
        """Return a description of a clip for messages."""
        shard = row // self.header.shard_clips
        return f"clip {self.manifest.ids[row]!r} (row {row}, shard {shard})"

    def _check_rows(self, rows: ArrayLike) -> NDArray[np.int64]:
        wanted = np.asarray(rows)
        if wanted.ndim != 1 or (wanted.size and not np.issubdtype(wanted.dtype, np.integer)):
            raise IndexError(f"rows must be a list of integers, not {wanted.dtype} {wanted.shape}")
        wanted = wanted.astype(np.int64)
        outside = wanted[(wanted < 0) | (wanted >= len(self))]
        if outside.size:
            raise IndexError(f"row {outside[0]} is not in 0..{len(self) - 1}")
        without = wanted[self.status[wanted] != Status.STORED]
        if without.size:
            row = int(without[0])
            reason = self.failures.get(
                self.manifest.ids[row], "it is not extracted yet, run `avcil extract` again"
            )
            raise CacheIncomplete(f"{self.where}: {self.describe(row)} has no tokens: {reason}")
        return wanted

    def _empty(self, count: int) -> Clips:
        shapes = _shapes(self.encoding)
        return Clips(
            visual=np.empty((count, *shapes[0]), np.float16),
            audio=np.empty((count, *shapes[1]), np.float16),
            visual_lengths=np.empty(count, np.int64),
            audio_lengths=np.empty(count, np.int64),
            labels=np.empty(count, np.int64),
        )

    def _read(self, modality: Modality, rows: NDArray[np.int64], out: NDArray[np.float16]) -> None:
        if self.header.storage.numbers == "float16":
            self._readers[modality][0].read(rows, out)
            return
        block = max(1, DECODE_BYTES // self.header.arrays[modality][0].chunk_bytes)
        for first in range(0, len(rows), block):
            stored = self.read_stored(modality, rows[first : first + block])
            quantize.decode(stored, self.header.storage, out[first : first + block])

    def load_tokens(self, modality: Modality, rows: ArrayLike) -> NDArray[np.float16]:
        """Read one modality of clips: [B, T, D], see `load`."""
        wanted = self._check_rows(rows)
        out = np.empty((len(wanted), *self.header.arrays[modality][0].tail), np.float16)
        self._read(modality, wanted, out)
        return out

    def read_stored(
        self, modality: Modality, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.generic], ...]:
        """Return the stored arrays of the clips `rows` [B]: tokens, or int8 values and scales."""
        specs = self.header.arrays[modality]
        stored = tuple(np.empty((len(rows), *spec.tail), spec.dtype) for spec in specs)
        for reader, array in zip(self._readers[modality], stored, strict=True):
            reader.read(rows, array)
        return stored


def _open_partly(path: str) -> FeatureStore:
    return FeatureStore.open(path, complete=False)


def _reader(
    files: Files,
    header: Header,
    spec: ArraySpec,
    checksums: dict[str, Checksums],
    describe: Callable[[int], str],
) -> ArrayReader:
    if is_plain(files, header, spec) and files.folder is not None:
        return ShardReader(files.folder, header, spec, checksums[spec.name], describe)
    from avcil.cache.format.zarr_reader import ZarrReader

    return ZarrReader(files, spec, checksums[spec.name], describe)


def _shapes(encoding: Encoding) -> tuple[tuple[int, int], tuple[int, int]]:
    return (
        (encoding.visual_tokens, encoding.visual_width),
        (encoding.audio_tokens, encoding.audio_width),
    )


def _first(out: Clips, count: int, encoding: Encoding) -> Clips:
    """Return the first `count` clips of a buffer, checked."""
    for name, shape in zip(MODALITIES, _shapes(encoding), strict=True):
        array: NDArray[np.float16] = getattr(out, name)
        if array.shape[1:] != shape or len(array) < count or array.dtype != np.float16:
            raise ValueError(
                f"out.{name} must be float16 of at least {(count, *shape)}, "
                f"not {array.dtype} {array.shape}"
            )
        if not array.flags.c_contiguous:
            raise ValueError(f"out.{name} must be C-contiguous")
    return Clips(
        visual=out.visual[:count],
        audio=out.audio[:count],
        visual_lengths=out.visual_lengths[:count],
        audio_lengths=out.audio_lengths[:count],
        labels=out.labels[:count],
    )
