"""Write a cache shard by shard, so that a killed process loses the shard it was at and no more.

Order of a commit: the shard's files of every array (each written beside and renamed by Zarr),
fsync, then the record. A shard without a record is not there, whatever files it has.

Shapes: N clips of the data set; S clips of a shard; t, s tokens of a clip.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import zarr
from zarr.storage import LocalStore

from avcil.atomic import replace_file, sync_folder
from avcil.cache.block import Block
from avcil.cache.comparison import check_same
from avcil.cache.creation import create, new_header
from avcil.cache.files import Files, local_folder
from avcil.cache.layout import LOCK, ROOT, Header, is_unfinished, parse_header
from avcil.cache.lock import WriteLock
from avcil.cache.opening import (
    UNOPENED,
    Rows,
    add_record,
    read_manifest,
    read_rows,
    unfinished_shards,
)
from avcil.cache.records import Record, Status, dump_record, record_key
from avcil.cache.schema import (
    CacheUnwritable,
    Encoding,
    Failure,
    Manifest,
    SchemaMismatch,
    Storage,
    Tokens,
)


class CacheWriter:
    """Writes a cache; a context manager that holds the cache's lock while open."""

    def __init__(self, path: Path, header: Header, manifest: Manifest, lock: WriteLock) -> None:
        self._path, self._header, self._manifest, self._lock = path, header, manifest, lock
        self._files = Files.at(path)
        self._rows: Rows = read_rows(self._files, header)
        self._store = LocalStore(path)

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
            path: a local folder; parents are made.
            manifest: the clips.
            encoding: what makes their tokens.
            shard_clips: clips a shard; left out, that of the cache or a suitable one.
            storage: how numbers lie on disk; left out, that of the cache or float16.

        Raises:
            SchemaMismatch: another format version or another layout, or not a cache.
            FingerprintMismatch: the cache was made by another encoder or with other settings.
            ManifestMismatch: it was made for other clips.
            CacheBusy: another process is writing it.
            CacheUnwritable: the disk is full, the folder read-only, or the path no local folder.
        """
        folder = local_folder(path)
        wanted = new_header(manifest, encoding, storage or Storage(), shard_clips)
        with writable(folder):
            lock = _lock(folder)
        try:
            with writable(folder):
                _sweep(folder)
                if _is_new(folder):
                    create(folder, wanted, manifest)
            header = parse_header((folder / ROOT).read_bytes(), str(folder))
            check_same(str(folder), header, wanted, shard_clips, storage)
            check_rows(folder, header, manifest)
            return cls(folder, header, manifest, lock)
        except BaseException:
            lock.release()
            raise

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
            ShardMissing, ShardDamaged: a clip to keep cannot be read.
        """
        rows, todo = self.rows(shard), self.todo(shard)
        if len(tokens) not in (len(rows), len(todo)):
            raise ValueError(
                f"shard {shard} takes tokens of {len(rows)} clips, or of the {len(todo)} in "
                f"todo({shard}), not of {len(tokens)}"
            )
        block = Block(self._header, shard)
        new = list(rows) if len(tokens) == len(rows) else todo
        self._keep(block, sorted(set(rows) - set(new)))
        for i, row in enumerate(new):
            block.put(row - rows.start, self._manifest.ids[row], tokens[i])
        with writable(self._path, safe=self.shards - len(self.pending())):
            self._write(block)
            record = block.record()
            replace_file(self._path / record_key(shard), dump_record(record))
        self._enter(record)

    def _keep(self, block: Block, rows: list[int]) -> None:
        """Take the good clips of a shard that is written again."""
        if rows:
            block.keep(self._files, self._rows, self._manifest, rows)

    def _enter(self, record: Record) -> None:
        for row in self._header.rows(record.shard):
            self._rows.failures.pop(self._manifest.ids[row], None)
        add_record(self._rows, self._header, record)

    def _write(self, block: Block) -> None:
        span = self.rows(block.shard)
        for name, content in block.arrays().items():
            open_for_writing(self._store, name)[span.start : span.stop] = content
            ending = "/0" * (content.ndim - 1)
            _sync(self._path / name, f"c/{block.shard}{ending}")


def open_for_writing(store: LocalStore, name: str) -> zarr.Array[Any]:
    """Open an array that stores every chunk; by itself Zarr leaves out those of fill value.

    Raises:
        SchemaMismatch: its metadata is gone or damaged.
    """
    try:
        array = zarr.open_array(store, path=name, mode="r+")
    except UNOPENED as error:
        raise SchemaMismatch(
            f"{store.root}/{name}/{ROOT} is gone or damaged: run `avcil cache verify --repair`"
        ) from error
    return array.with_config({"write_empty_chunks": True})  # open_array ignores its `config`


def check_rows(folder: Path, header: Header, manifest: Manifest) -> None:
    """Refuse another list of clips than that of the cache."""
    from avcil.cache.comparison import check_same_clips

    check_same_clips(str(folder), read_manifest(Files.at(folder), header), manifest)


def _lock(folder: Path) -> WriteLock:
    """Take the lock, in a folder that is a cache, or empty, or not there yet."""
    if _holds_other_files(folder):
        raise SchemaMismatch(f"{folder} holds other files: give the path of a cache or a new one")
    (folder / LOCK).parent.mkdir(parents=True, exist_ok=True)
    return WriteLock.acquire(folder / LOCK)


def _holds_other_files(folder: Path) -> bool:
    """Tell a folder of someone's from a cache; a kill before the lock leaves an empty `status`."""
    if not folder.is_dir() or (folder / LOCK).is_file():
        return False
    status = (folder / LOCK).parent
    return any(
        path != status or not path.is_dir() or any(path.iterdir()) for path in folder.iterdir()
    )


def _is_new(folder: Path) -> bool:
    header = folder / ROOT
    return not header.exists() or is_unfinished(header.read_bytes(), str(folder))


def _sweep(folder: Path) -> None:
    """Remove what a killed writer left behind: files that were never renamed."""
    for partial in folder.rglob("*.partial"):
        partial.unlink()


def _sync(array: Path, key: str) -> None:
    """Make a shard's file durable, and the folders that name it."""
    path = array / key
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    while path != array:
        path = path.parent
        sync_folder(path)


_FOLDER = "choose a folder that you may write to, with --cache"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ELSEWHERE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
)


@contextmanager
def writable(path: Path, safe: int | None = None, elsewhere: str = _FOLDER) -> Iterator[None]:
    """Turn errors of the disk into one line that says what to do.

    Args:
        path: what is written.
        safe: shards that are written and stay.
        elsewhere: what to do where this path cannot be written at all.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL + _ELSEWHERE:
            raise
        full = error.errno in _FULL
        remedy = "make room, then run the same command again" if full else elsewhere
        kept = "" if safe is None else f"; {safe} shards are written and stay"
        raise CacheUnwritable(
            f"cannot write {path}: {os.strerror(error.errno)}{kept}: {remedy}"
        ) from error
