"""Read a whole cache and report all damage.

Shapes: B clips that are checked together; T tokens of D channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from avcil.cache.errors import ShardDamaged, ShardMissing
from avcil.cache.format import quantize
from avcil.cache.format.create import PER_SHARD
from avcil.cache.format.layout import RECORDS, ROOT, Header, Record, Status, recorded_shards
from avcil.cache.format.load import (
    UNOPENED,
    Rows,
    add_record,
    empty_rows,
    read_header,
    read_manifest,
    read_record,
    unfinished_shards,
)
from avcil.cache.format.quantize import MODALITIES, Modality
from avcil.cache.reader import FeatureStore
from avcil.cache.storage.base import Files
from avcil.cache.storage.local import readable
from avcil.cache.storage.open import open_files
from avcil.runtime.progress import track

BLOCK_BYTES = 32 << 20
NORM_TOLERANCE = {"float16": 0.01, "int8": 0.05}
EXPONENT = 0x7C00  # these bits of a float16 are all set in NaN and infinity


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """One kind of damage to a clip, or to a shard or array as a whole."""

    shard: int
    row: int | None = None  # None: not about a single clip
    clip: str = ""
    array: str
    what: str


@dataclass(kw_only=True, slots=True)
class Report:
    """The result of `verify`."""

    header: Header
    clips: int = 0
    """Number of clips that were checked, with or without tokens."""
    unfinished: list[int] = field(default_factory=list)
    """Shards that are not extracted yet, which does not count as damage."""
    damages: list[Damage] = field(default_factory=list)


def verify(path: Path | str) -> Report:
    """Check a whole cache.

    Checks that header, list of clips and records are those that were written; the checksums of each
    clip; that tokens are finite, zero after the clip's length and of norm 1 if the encoder
    guarantees it; and that the arrays of lengths and status agree with the records.

    Raises:
        CacheNotFound, SchemaMismatch, ShardDamaged: the header, an array's metadata or the list of
            clips cannot be used, so that nothing else can be checked.
        CacheUnreadable: the file system refuses to read a file.
    """
    files = open_files(path)
    header = read_header(files)
    manifest = read_manifest(files, header)
    report = Report(header=header)
    rows, records = _records(files, report)
    store = FeatureStore.of(files, header, manifest, rows)
    report.unfinished = sorted(
        set(unfinished_shards(header, rows)) - {damage.shard for damage in report.damages}
    )
    small = {name: open_small(files, header, name) for name in PER_SHARD}
    report.damages += [
        Damage(shard=0, array=name, what=f"{name}/{ROOT} is gone or damaged")
        for name, array in small.items()
        if array is None
    ]
    with track("verify", sum(len(record.status) for record in records), "clips") as bar:
        for record in records:
            report.damages += _check_small(small, header, record)
            report.damages += _check_shard(store, record)
            report.clips += len(record.status)
            bar.advance(len(record.status))
    return report


def _records(files: Files, report: Report) -> tuple[Rows, list[Record]]:
    """Read the intact records; the others are reported as damage."""
    rows, records = empty_rows(report.header), []
    for shard in recorded_shards(files.names(RECORDS)):
        try:
            record = read_record(files, report.header, shard)
        except ShardDamaged as error:
            report.damages.append(Damage(shard=shard, array=RECORDS, what=str(error)))
            continue
        if record is not None:
            add_record(rows, report.header, record)
            records.append(record)
    return rows, records


def open_small(files: Files, header: Header, name: str) -> zarr.Array[Any] | None:
    """Open an array of one number a clip, or return None if its metadata is lost."""
    try:
        with readable(files.where):
            array = zarr.open_array(files.store, path=name, mode="r")
    except UNOPENED:
        return None
    expected = ((header.clips,), (header.shard_clips,), PER_SHARD[name][0])
    return array if (array.shape, array.chunks, str(array.dtype)) == expected else None


def _check_small(
    arrays: dict[str, zarr.Array[Any] | None], header: Header, record: Record
) -> Iterator[Damage]:
    """Compare the small arrays, which are for other Zarr readers, with the record."""
    span = header.rows(record.shard)
    truth = (record.lengths["visual"], record.lengths["audio"], record.status)
    for (name, array), expected in zip(arrays.items(), truth, strict=True):
        if array is None:
            continue  # reported once for all shards
        try:
            with readable(str(array.store_path)):
                found = np.asarray(array[span.start : span.stop])
            if np.array_equal(found, expected):
                continue
            what = "its values differ from the record"
        except (ValueError, RuntimeError) as error:  # what zarr's codecs raise
            what = str(error)
        yield Damage(shard=record.shard, array=name, what=what)


def _check_shard(store: FeatureStore, record: Record) -> Iterator[Damage]:
    span = store.header.rows(record.shard)
    rows = np.array([row for row in span if store.status[row] != Status.REDO], np.int64)
    for modality in MODALITIES:
        most = max(1, BLOCK_BYTES // store.header.arrays[modality][0].chunk_bytes)
        for first in range(0, len(rows), most):
            yield from _check_block(store, modality, rows[first : first + most])


def _check_block(
    store: FeatureStore, modality: Modality, rows: NDArray[np.int64]
) -> Iterator[Damage]:
    """Check clips together and, if that fails, one by one to find the damaged ones."""
    try:
        stored = store.read_stored(modality, rows)
    except (ShardDamaged, ShardMissing) as error:
        if len(rows) > 1:
            for row in rows:
                yield from _check_block(store, modality, np.array([row]))
        else:
            yield _damage(store, modality, int(rows[0]), error.what or str(error))
        return
    for row, what in _check_values(store, modality, rows, stored):
        yield _damage(store, modality, row, what)


def _damage(store: FeatureStore, modality: Modality, row: int, what: str) -> Damage:
    shard = row // store.header.shard_clips
    clip = store.manifest.ids[row]
    return Damage(shard=shard, row=row, clip=clip, array=modality, what=what)


def _check_values(
    store: FeatureStore,
    modality: Modality,
    rows: NDArray[np.int64],
    stored: tuple[NDArray[np.generic], ...],
) -> Iterator[tuple[int, str]]:
    tokens = np.empty(stored[0].shape, np.float16)
    quantize.decode(stored, store.header.storage, tokens)
    for row, clip in zip(rows.tolist(), tokens, strict=True):
        if store.status[row] == Status.FAILED:
            continue  # all NaN, as its checksum has confirmed
        what = _check_clip(store, modality, clip, int(store.lengths[modality][row]))
        if what:
            yield row, what


def _check_clip(
    store: FeatureStore, modality: Modality, clip: NDArray[np.float16], length: int
) -> str:
    """Return what is wrong with a clip's tokens [T, D], or an empty text."""
    if not 1 <= length <= len(clip):
        return f"its length is {length}, not 1..{len(clip)}"
    if ((clip.view(np.uint16) & EXPONENT) == EXPONENT).any():  # 5 x as fast as np.isfinite
        return "its tokens are not finite"
    if clip[length:].any():
        return "it has tokens beyond its length"
    if modality not in store.encoding.unit_norm:
        return ""
    norms = np.linalg.norm(clip[:length].astype(np.float32), axis=1)
    worst = float(norms[np.abs(norms - 1).argmax()])
    if abs(worst - 1) > NORM_TOLERANCE[store.header.storage.numbers]:
        return f"a token has norm {worst:.3f}, the encoder guarantees 1"
    return ""
