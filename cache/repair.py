"""Mark damaged clips, so that the next extraction redoes only those.

Lost metadata of arrays is restored from the header.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from avcil.cache.errors import ShardDamaged
from avcil.cache.format.create import LISTING, PER_SHARD, create_column, create_small, create_tokens
from avcil.cache.format.layout import (
    RECORDS,
    ROOT,
    Header,
    Record,
    Status,
    dump_record,
    record_key,
    recorded_shards,
)
from avcil.cache.format.load import read_header, read_record
from avcil.cache.storage.base import Files
from avcil.cache.storage.local import writable
from avcil.cache.storage.open import open_files
from avcil.cache.verify import Damage, Report, open_small, verify
from avcil.cache.writer import open_for_writing

CHECKSUM_BYTES = 4


def verify_and_repair(path: Path | str) -> Report:
    """Verify a cache, then mark its damaged clips; an intact cache is not changed.

    Raises:
        CacheBusy: another process is writing it.
        CacheUnwritable: the folder is read-only, or the disk full.
        CacheNotFound, SchemaMismatch, ShardDamaged, StoreUnreachable: see `verify`.
    """
    files = open_files(path, write=True)
    header = read_header(files)
    restored = [
        Damage(shard=0, array=name, what=f"{name}/{ROOT} is gone or damaged")
        for name in _without_metadata(files, header)
    ]
    report = None if restored else verify(path)
    if report is not None and not report.damages:
        return report
    with writable(files.where):
        lock = files.lock()
        try:
            _restore(files, header, [damage.array for damage in restored])
            report = verify(path)  # again: now that nobody else can write
            _mark(files, report)
        finally:
            lock.release()
    report.damages[:0] = restored
    return report


def _without_metadata(files: Files, header: Header) -> list[str]:
    """List the arrays without valid metadata, except the small ones, which `verify` checks."""
    specs = [spec.name for each in header.arrays.values() for spec in each]
    return [name for name in (*LISTING, *specs) if not _is_array(files.read(f"{name}/{ROOT}"))]


def _is_array(raw: bytes | None) -> bool:
    try:
        metadata = json.loads(raw or b"")
        return {"shape", "data_type", "chunk_grid", "codecs"} <= metadata.keys()
    except (ValueError, AttributeError):
        return False


def _restore(files: Files, header: Header, names: list[str]) -> None:
    """Restore metadata from the header; the chunks stay as they are."""
    specs = {spec.name: spec for each in header.arrays.values() for spec in each}
    for name in names:
        files.delete(f"{name}/{ROOT}")
        if name in specs:
            create_tokens(files.store, header, specs[name])
        elif name == "id":
            chunk = files.read("id/c/0/0") or b""
            width = (len(chunk) - CHECKSUM_BYTES) // header.clips
            create_column(files.store, name, (header.clips, max(1, width)))
        else:
            create_column(files.store, name, (header.clips,))


def _mark(files: Files, report: Report) -> None:
    """Mark damaged clips, and restore the small arrays from the records."""
    by_shard: dict[int, list[Damage]] = defaultdict(list)
    for damage in report.damages:
        by_shard[damage.shard].append(damage)
    header = report.header
    lost = [name for name in PER_SHARD if open_small(files, header, name) is None]
    for name in lost:
        files.delete(f"{name}/{ROOT}")
        create_small(files.store, header, name)
    for shard, damages in by_shard.items():
        _mark_shard(files, header, shard, damages)
    for shard in recorded_shards(files.names(RECORDS)) if lost else ():
        record = read_record(files, header, shard)
        if record is not None:
            _rewrite_small(files, header, record)


def _mark_shard(files: Files, header: Header, shard: int, damages: list[Damage]) -> None:
    """Mark the damaged clips in a shard's record; delete the record if no clip is intact."""
    try:
        record = read_record(files, header, shard)
    except ShardDamaged:
        record = None
    rows = {damage.row for damage in damages} - {None}
    if record is None or rows.issuperset(header.rows(shard)):
        files.delete(record_key(shard))
        return
    span = header.rows(shard)
    status = [
        int(Status.REDO) if row in rows else state
        for row, state in zip(span, record.status, strict=True)
    ]
    marked = {damage.clip for damage in damages}
    failures = {clip: why for clip, why in record.failures.items() if clip not in marked}
    notes = {clip: note for clip, note in record.notes.items() if clip not in marked}
    record = replace(record, status=status, failures=failures, notes=notes)
    files.write(record_key(shard), dump_record(record))
    _rewrite_small(files, header, record)


def _rewrite_small(files: Files, header: Header, record: Record) -> None:
    span = header.rows(record.shard)
    values = (record.lengths["visual"], record.lengths["audio"], record.status)
    for name, content in zip(PER_SHARD, values, strict=True):
        array = open_for_writing(files, name)
        files.delete(f"{name}/c/{record.shard}")  # it may be unreadable
        array[span.start : span.stop] = np.array(content, array.dtype)
