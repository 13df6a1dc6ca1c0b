"""Mark what `verify` found damaged, so that the next extraction redoes those clips alone."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from zarr.storage import LocalStore

from avcil.atomic import replace_file
from avcil.cache.creation import PER_SHARD, create_small
from avcil.cache.files import Files, local_folder
from avcil.cache.layout import LOCK, RECORDS, ROOT, Header
from avcil.cache.lock import WriteLock
from avcil.cache.opening import read_record
from avcil.cache.records import (
    Record,
    Status,
    dump_record,
    record_key,
    recorded_shards,
)
from avcil.cache.schema import ShardDamaged
from avcil.cache.verify import Damage, Report, open_small, verify
from avcil.cache.writer import open_for_writing, writable


def verify_and_repair(path: Path | str) -> Report:
    """Verify a local cache, then mark its damaged clips; nothing is marked where all is well.

    Raises:
        CacheBusy: another process is writing it.
        CacheUnwritable: the folder is read-only or not local, or the disk full.
        CacheNotFound, SchemaMismatch, ShardDamaged: see `verify`.
    """
    folder = local_folder(path)
    report = verify(folder)
    if not report.damages:
        return report
    with writable(folder):
        lock = WriteLock.acquire(folder / LOCK)
        try:
            _mark(folder, verify(folder))  # again: now that nobody else can write
        finally:
            lock.release()
    return report


def _mark(folder: Path, report: Report) -> None:
    by_shard: dict[int, list[Damage]] = defaultdict(list)
    for damage in report.damages:
        by_shard[damage.shard].append(damage)
    made = _make_small(folder, report.header)
    for shard, damages in by_shard.items():
        _mark_shard(folder, report.header, shard, damages)
    if made:
        _fill_small(folder, report.header)


def _make_small(folder: Path, header: Header) -> bool:
    """Make the small arrays again whose metadata is gone; tell whether there were any."""
    files = Files.at(folder)
    gone = [name for name in PER_SHARD if open_small(files, header, name) is None]
    for name in gone:
        (folder / name / ROOT).unlink(missing_ok=True)
        create_small(LocalStore(folder), header, name)
    return bool(gone)


def _fill_small(folder: Path, header: Header) -> None:
    """Write the small arrays of all shards from their records."""
    files = Files.at(folder)
    for shard in recorded_shards(files.names(RECORDS)):
        record = read_record(files, header, shard)
        if record is not None:
            _rewrite_small(folder, header, record)


def _mark_shard(folder: Path, header: Header, shard: int, damages: list[Damage]) -> None:
    """Give a shard a record that lists its damaged clips; without a good clip, none at all."""
    path = folder / record_key(shard)
    try:
        record = read_record(Files.at(folder), header, shard)
    except ShardDamaged:
        record = None
    rows = {damage.row for damage in damages} - {None}
    if record is None or rows.issuperset(header.rows(shard)):
        path.unlink(missing_ok=True)
        return
    span = header.rows(shard)
    status = [
        int(Status.REDO) if row in rows else state
        for row, state in zip(span, record.status, strict=True)
    ]
    marked = {damage.clip for damage in damages}
    failures = {clip: why for clip, why in record.failures.items() if clip not in marked}
    record = replace(record, status=status, failures=failures)
    replace_file(path, dump_record(record))
    _rewrite_small(folder, header, record)


def _rewrite_small(folder: Path, header: Header, record: Record) -> None:
    span = header.rows(record.shard)
    values = (record.lengths["visual"], record.lengths["audio"], record.status)
    for name, content in zip(PER_SHARD, values, strict=True):
        array = open_for_writing(LocalStore(folder), name)
        (folder / name / "c" / str(record.shard)).unlink(missing_ok=True)  # it may be unreadable
        array[span.start : span.stop] = np.array(content, array.dtype)
