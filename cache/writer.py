"""Write a cache shard by shard, so that a killed process loses the shard it was at and no more.

Order of a commit: the shard's files of every array (each written beside and renamed by Zarr),
fsync, then the record. A shard without a record is not there, whatever files it has. In a bucket
each file is one upload, and nothing else differs.

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
from avcil.cache.format.shard_builder import Block
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
        """Create a cache, or go on with the one at this path.

        Args:
            path: a local folder, whose parents are made, or a URL such as s3://bucket/name.zarr.
            manifest: the clips.
            encoding: what makes their tokens.
            shard_clips: clips a shard; left out, that of the cache or a suitable one.
            storage: how numbers lie on disk; left out, that of the cache or float16.

        Raises:
            StoreUnreachable: the bucket of a URL is not there, or does not let us in.
            SchemaMismatch: another format version or another layout, or not a cache.
            FingerprintMismatch: the cache was made by another encoder or with other settings.
            ManifestMismatch: it was made for other clips.
            CacheBusy: another process is writing it.
            CacheUnwritable: the disk is full or the folder read-only.
        """
        files = open_files(path, write=True)
        wanted = new_header(manifest, encoding, storage or Storage(), shard_clips)
        with writable(files.where):
            lock = _lock(files)
        try:
            with writable(files.where):
                files.sweep()
                if _is_new(files):
                    create(files, wanted, manifest)
            header = read_header(files)
            check_same(files.where, header, wanted, shard_clips, storage)
            found = read_manifest(files, header)
            if header.manifest != wanted.manifest:
                check_same_clips(files.where, found, manifest)
            return cls(files, header, manifest, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def join(cls, path: Path | str) -> CacheWriter:
        """Write shards of a cache that another process has opened, and for which it holds the lock.

        Two that join must not write one shard at a time; one after the other does no harm.

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
        """Let other processes write the cache."""
        if self._lock is not None:
            self._lock.release()

    @property
    def shards(self) -> int:
        """Return the number of shards, written or not."""
        return self._header.shards

    @property
    def shard_clips(self) -> int:
        """Return the number of clips a shard; the last may have fewer."""
        return self._header.shard_clips

    @property
    def clip_bytes(self) -> int:
        """Return what the tokens of one clip take on disk, uncompressed."""
        return sum(spec.chunk_bytes for specs in self._header.arrays.values() for spec in specs)

    @property
    def failures(self) -> dict[str, str]:
        """Return why clips of the written shards have no tokens, by clip id."""
        return dict(self._rows.failures)

    def pending(self) -> list[int]:
        """Return the shards that are not written, or hold clips to redo, ascending."""
        return unfinished_shards(self._header, self._rows)

    def retry_failed(self) -> None:
        """Make the clips that failed pending again; on disk nothing changes until a commit."""
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
        """Write a whole shard, then its record.

        Args:
            shard: which.
            tokens: one a row of `rows(shard)`; or, of a shard of which only some clips must be
                redone, one a row of `todo(shard)`, and the others are kept. Each is read once, so
                it may be a sequence that makes its items when asked.

        Raises:
            ValueError: the number of tokens, or the shape of one, is wrong.
            CacheUnwritable: the disk is full or the folder read-only; written shards stay.
            CacheBusy: this process was not heard of for so long that another took over.
            ShardMissing, ShardDamaged: a clip to keep cannot be read.
        """
        rows, todo = self.rows(shard), self.todo(shard)
        if len(tokens) not in (len(rows), len(todo)):
            raise ValueError(
                f"shard {shard} takes tokens of {len(rows)} clips, or of the {len(todo)} in "
                f"todo({shard}), not of {len(tokens)}"
            )
        if self._lock is not None:
            self._lock.check()
        block = Block(self._header, shard)
        new = list(rows) if len(tokens) == len(rows) else todo
        self._keep(block, sorted(set(rows) - set(new)))
        for i, row in enumerate(new):
            block.put(row - rows.start, self._manifest.ids[row], tokens[i])
        with writable(self._files.where, safe=self.shards - len(self.pending())):
            self._write(block)
            record = block.record()
            self._files.write(record_key(shard), dump_record(record))
        self._enter(record)

    def sweep(self) -> None:
        """Remove what processes that joined left behind when they died; none may be writing."""
        self._files.sweep()

    def refresh(self, shard: int) -> None:
        """Take notice of a shard that a process which joined may have written.

        Raises:
            CacheBusy: this process was not heard of for so long that another took over.
        """
        if self._lock is not None:
            self._lock.check()
        record = read_record(self._files, self._header, shard)
        if record is not None:
            self._enter(record)

    def _keep(self, block: Block, kept: list[int]) -> None:
        """Take clips, by row, from the shard as it lies on disk, checked."""
        if not kept:
            return
        rows, first = self._rows, self._header.rows(block.shard).start
        store = FeatureStore(self._files, self._header, self._manifest, rows)
        for row in kept:
            clip = self._manifest.ids[row]
            if rows.status[row] == Status.FAILED:
                block.fail(row - first, clip, rows.failures[clip])
                continue
            stored = {name: store.read_stored(name, np.array([row])) for name in MODALITIES}
            block.keep(
                row - first,
                {name: tuple(array[0] for array in arrays) for name, arrays in stored.items()},
                {name: int(rows.lengths[name][row]) for name in MODALITIES},
                {name: rows.error[name][row] for name in MODALITIES},
            )
            if clip in rows.notes:
                block.note(clip, rows.notes[clip])

    def _enter(self, record: Record) -> None:
        for row in self._header.rows(record.shard):
            self._rows.failures.pop(self._manifest.ids[row], None)
        add_record(self._rows, self._header, record)

    def _write(self, block: Block) -> None:
        span = self.rows(block.shard)
        for name, content in block.arrays().items():
            open_for_writing(self._files, name)[span.start : span.stop] = content
            ending = "/0" * (content.ndim - 1)
            self._files.sync(name, f"c/{block.shard}{ending}")


def open_for_writing(files: Files, name: str) -> zarr.Array[Any]:
    """Open an array that stores every chunk; by itself Zarr leaves out those of fill value.

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


def _lock(files: Files) -> Lock:
    """Take the lock of what is a cache, or empty, or not there yet."""
    if _holds_other_files(files):
        raise SchemaMismatch(
            f"{files.where} holds other files: give the path of a cache or a new one"
        )
    return files.lock()


def _holds_other_files(files: Files) -> bool:
    """Tell a folder of someone's from a cache; a kill before the lock leaves an empty `status`."""
    names = files.names("")
    if not names or files.read(LOCK) is not None:
        return False
    header = files.read(ROOT)
    if header is not None and is_cache(header):
        return False
    return names != ["status"] or bool(files.names("status"))


def _is_new(files: Files) -> bool:
    header = files.read(ROOT)
    return header is None or is_unfinished(header, files.where)
