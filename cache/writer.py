"""Write a cache shard by shard, so that a killed process loses only its current shard.

A commit writes the shard's files of every array (Zarr writes a temporary file and renames it),
calls fsync, and then writes the record. A shard without a record does not exist, whatever files it
has. In a bucket each file is one upload; the rest is the same.

Shapes: N clips of the data set; S clips of a shard; t, s tokens of a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import zarr

from avcil.cache.errors import SchemaMismatch
from avcil.cache.format.create import create, new_header
from avcil.cache.format.layout import (
    ROOT,
    Header,
    Record,
    Status,
    dump_record,
    is_cache,
    is_unfinished,
    record_key,
)
from avcil.cache.format.load import (
    UNOPENED,
    Rows,
    add_record,
    read_header,
    read_manifest,
    read_record,
    read_rows,
    unfinished_shards,
)
from avcil.cache.format.mismatch import check_same, check_same_clips
from avcil.cache.format.quantize import MODALITIES
from avcil.cache.format.shard_builder import ShardBuilder
from avcil.cache.reader import FeatureStore
from avcil.cache.schema import Encoding, Failure, Manifest, Storage, Tokens
from avcil.cache.storage.base import LOCK, Files, Lock
from avcil.cache.storage.local import writable
from avcil.cache.storage.open import open_files


class CacheWriter:
    """Writes a cache; a context manager that holds the cache's lock while open."""

    def __init__(self, files: Files, header: Header, manifest: Manifest, lock: Lock | None) -> None:
        self._files, self._header, self._manifest, self._lock = files, header, manifest, lock
        self._rows: Rows = read_rows(files, header)

    @classmethod
    def open(
        cls,
        path: Path | str,
        manifest: Manifest,
        encoding: Encoding,
        *,
        shard_clips: int | None = None,
        storage: Storage | None = None,
    ) -> CacheWriter:
        """Create a cache, or resume the one at this path.

        Args:
            path: a local folder, created with its parents if needed, or a URL such as s3://bucket/name.zarr.
            manifest: the clips.
            encoding: the encoder of their tokens.
            shard_clips: clips per shard; by default that of the cache, or a suitable number.
            storage: how numbers are stored; by default as in the cache, or float16.

        Raises:
            StoreUnreachable: the bucket of a URL does not exist, or denies access.
            SchemaMismatch: another format version or another layout, or not a cache.
            FingerprintMismatch: the cache was made with another encoder or other settings.
            ManifestMismatch: it was made for other clips.
            CacheBusy: another process is writing it.
            CacheUnwritable: the disk is full or the folder read-only.
        """
        files = open_files(path, write=True)
        wanted = new_header(manifest, encoding, storage or Storage(), shard_clips)
        with writable(files.where):
            if _holds_other_files(files):
                raise SchemaMismatch(
                    f"{files.where} contains other files: give the path of a cache or a new one"
                )
            lock = files.lock()
        try:
            with writable(files.where):
                files.sweep()
                found = files.read(ROOT)
                if found is None or is_unfinished(found, files.where):
                    create(files, wanted, manifest)
            header = read_header(files)
            check_same(files.where, header, wanted, shard_clips, storage)
            clips = read_manifest(files, header)
            if header.manifest != wanted.manifest:
                check_same_clips(files.where, clips, manifest)
            return cls(files, header, manifest, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def join(cls, path: Path | str) -> CacheWriter:
        """Write shards of a cache that another process has opened and locked.

        Two joined processes must not write the same shard at the same time.

        Raises:
            CacheError: see `FeatureStore.open`.
        """
        files = open_files(path, write=True)
        header = read_header(files)
        return cls(files, header, read_manifest(files, header), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.release()

    @property
    def shards(self) -> int:
        """Return the number of shards, written or not."""
        return self._header.shards

    @property
    def shard_clips(self) -> int:
        """Return the number of clips per shard; the last shard may have fewer."""
        return self._header.shard_clips

    @property
    def clip_bytes(self) -> int:
        """Return the size of one clip's tokens on disk, uncompressed."""
        return sum(spec.chunk_bytes for specs in self._header.arrays.values() for spec in specs)

    @property
    def failures(self) -> dict[str, str]:
        """Return why clips of the written shards have no tokens, by clip id."""
        return dict(self._rows.failures)

    def pending(self) -> list[int]:
        """Return the shards that are not written or contain clips to redo, ascending."""
        return unfinished_shards(self._header, self._rows)

    def retry_failed(self) -> None:
        """Mark failed clips as pending; nothing changes on disk until a commit."""
        self._rows.status[self._rows.status == Status.FAILED] = Status.REDO
        self._rows.failures.clear()

    def rows(self, shard: int) -> range:
        """Return the rows of a shard."""
        return self._header.rows(shard)

    def todo(self, shard: int) -> list[int]:
        """Return the rows of a shard that must be encoded: all, or those found damaged."""
        waiting = (Status.WAITING, Status.REDO)
        return [row for row in self.rows(shard) if self._rows.status[row] in waiting]

    def commit(self, shard: int, tokens: Sequence[Tokens | Failure]) -> None:
        """Write a complete shard, then its record.

        Args:
            shard: index of the shard.
            tokens: one item per row of `rows(shard)`, or one per row of `todo(shard)` to keep the
                other clips as they are. Each item is read once, so the sequence may compute its
                items on access.

        Raises:
            ValueError: the number of tokens, or the shape of one, is wrong.
            CacheUnwritable: the disk is full or the folder read-only; written shards stay.
            CacheBusy: the lease has expired, and another process has taken it.
            ShardMissing, ShardDamaged: a clip that is kept cannot be read.
        """
        rows, todo = self.rows(shard), self.todo(shard)
        if len(tokens) not in (len(rows), len(todo)):
            raise ValueError(
                f"shard {shard} takes tokens of {len(rows)} clips, or of the {len(todo)} in "
                f"todo({shard}), not of {len(tokens)}"
            )
        if self._lock is not None:
            self._lock.check()
        builder = ShardBuilder(self._header, shard)
        new = list(rows) if len(tokens) == len(rows) else todo
        self._copy_stored(builder, sorted(set(rows) - set(new)))
        for i, row in enumerate(new):
            builder.add(row - rows.start, self._manifest.ids[row], tokens[i])
        with writable(self._files.where, safe=self.shards - len(self.pending())):
            self._write(builder)
            record = builder.record()
            self._files.write(record_key(shard), dump_record(record))
        self._enter(record)

    def sweep(self) -> None:
        """Remove temporary files of joined processes that died; no process may be writing."""
        self._files.sweep()

    def refresh(self, shard: int) -> None:
        """Read the record of a shard that a joined process may have written.

        Raises:
            CacheBusy: the lease has expired, and another process has taken it.
        """
        if self._lock is not None:
            self._lock.check()
        record = read_record(self._files, self._header, shard)
        if record is not None:
            self._enter(record)

    def _copy_stored(self, builder: ShardBuilder, kept: list[int]) -> None:
        """Add the clips of rows `kept` as they are stored on disk, after checking them."""
        if not kept:
            return
        rows, first = self._rows, self._header.rows(builder.shard).start
        store = FeatureStore.of(self._files, self._header, self._manifest, rows)
        for row in kept:
            clip = self._manifest.ids[row]
            if rows.status[row] == Status.FAILED:
                builder.add_failure(row - first, clip, rows.failures[clip])
                continue
            stored = {name: store.read_stored(name, np.array([row])) for name in MODALITIES}
            builder.add_stored(
                row - first,
                {name: tuple(array[0] for array in arrays) for name, arrays in stored.items()},
                {name: int(rows.lengths[name][row]) for name in MODALITIES},
                {name: rows.error[name][row] for name in MODALITIES},
            )
            if clip in rows.notes:
                builder.add_note(clip, rows.notes[clip])

    def _enter(self, record: Record) -> None:
        for row in self._header.rows(record.shard):
            self._rows.failures.pop(self._manifest.ids[row], None)
        add_record(self._rows, self._header, record)

    def _write(self, builder: ShardBuilder) -> None:
        span = self.rows(builder.shard)
        for name, content in builder.arrays().items():
            open_for_writing(self._files, name)[span.start : span.stop] = content
            ending = "/0" * (content.ndim - 1)
            self._files.sync(name, f"c/{builder.shard}{ending}")


def open_for_writing(files: Files, name: str) -> zarr.Array[Any]:
    """Open an array so that every chunk is stored, even one that contains only the fill value.

    Raises:
        SchemaMismatch: its metadata is gone or damaged.
    """
    try:
        array = zarr.open_array(files.store, path=name, mode="r+")
    except UNOPENED as error:
        raise SchemaMismatch(
            f"{files.where}/{name}/{ROOT} is gone or damaged: run `avcil cache verify --repair`"
        ) from error
    return array.with_config({"write_empty_chunks": True})  # open_array ignores its `config`


def _holds_other_files(files: Files) -> bool:
    """Return whether the folder is not a cache; a kill before locking leaves an empty `status`."""
    names = files.names("")
    if not names or files.read(LOCK) is not None:
        return False
    header = files.read(ROOT)
    if header is not None and is_cache(header):
        return False
    return names != ["status"] or bool(files.names("status"))
