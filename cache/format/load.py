"""Read the metadata of a cache: header, list of clips, records, arrays.

Shapes: N clips of the data set.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avcil.cache.errors import CacheError, CacheNotFound, SchemaMismatch, ShardDamaged
from avcil.cache.format.layout import (
    RECORDS,
    ROOT,
    Header,
    Record,
    Status,
    is_unfinished,
    manifest_digest,
    parse_header,
    parse_record,
    record_key,
    recorded_shards,
)
from avcil.cache.format.quantize import MODALITIES, ArraySpec, Modality
from avcil.cache.format.shard_reader import Checksums
from avcil.cache.schema import SPLITS, Manifest
from avcil.cache.storage.base import Files
from avcil.cache.storage.local import readable

_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC = {"name": "crc32c"}
PLAIN_CODECS = ([{"name": "bytes"}, _CRC], [_BYTES, _CRC])  # int8 has no byte order

UNOPENED = (ValueError, LookupError, TypeError, RuntimeError, FileNotFoundError)
"""What Zarr raises if an array's metadata is missing or damaged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """The records of all shards, row by row."""

    status: NDArray[np.uint8]  # [N]
    lengths: dict[Modality, NDArray[np.int64]]  # [N] each
    crc32c: dict[str, Checksums]  # [N] each, by array
    failures: dict[str, str]  # id -> reason
    notes: dict[str, str]  # id -> remark about its tokens
    error: dict[Modality, NDArray[np.float64]]  # [N, 2] each: see Record.error


def read_header(files: Files) -> Header:
    """Read the header.

    Raises:
        CacheNotFound, SchemaMismatch: see FeatureStore.open.
    """
    raw = files.read(ROOT)
    if raw is None or is_unfinished(raw, files.where):
        raise CacheNotFound(
            f"there is no cache at {files.where}: make one with `avcil extract`, or give the "
            "path of another with --cache"
        )
    return parse_header(raw, files.where)


def read_manifest(files: Files, header: Header) -> Manifest:
    """Read the list of clips.

    Raises:
        ShardDamaged: it is not the list that was written.
    """
    import zarr

    try:
        with readable(files.where):
            arrays = [
                np.asarray(zarr.open_array(files.store, path=name, mode="r")[:])
                for name in ("id", "split", "label")
            ]
        ids, splits, labels = arrays
        manifest = Manifest(
            dataset=header.dataset,
            classes=header.classes,
            ids=tuple(map(bytes.decode, ids.view(f"S{ids.shape[1]}")[:, 0].tolist())),
            splits=tuple(map(SPLITS.__getitem__, splits.tolist())),
            labels=labels.astype(np.int64),
        )
    except (ValueError, LookupError, RuntimeError, FileNotFoundError) as error:
        raise _unlisted(files, str(error)) from error
    if len(manifest) != header.clips or manifest_digest(manifest) != header.manifest:
        raise _unlisted(files, "it does not match the header")
    return manifest


def _unlisted(files: Files, what: str) -> CacheError:
    return ShardDamaged(
        f"the list of clips in {files.where} (arrays id, split, label) is damaged: {what}; "
        "run `avcil cache verify --repair`; if that does not help, restore these three folders "
        "from a copy, or extract again into another path"
    )


def read_record(files: Files, header: Header, shard: int) -> Record | None:
    """Read the record of a shard, or return None if the shard is not written yet."""
    raw = files.read(record_key(shard))
    return None if raw is None else parse_record(raw, header, shard, files.where)


def read_rows(files: Files, header: Header) -> Rows:
    """Read all records.

    Raises:
        ShardDamaged: a record is damaged.
    """
    rows = empty_rows(header)
    shards = recorded_shards(files.names(RECORDS))
    if shards and shards[-1] >= header.shards:
        raise SchemaMismatch(
            f"{files.where} has a record of shard {shards[-1]}, but only {header.shards} shards: "
            "remove it with `avcil cache verify --repair`"
        )
    contents = files.read_all([record_key(shard) for shard in shards])
    for shard, raw in zip(shards, contents, strict=True):
        if raw is not None:
            add_record(rows, header, parse_record(raw, header, shard, files.where))
    return rows


def empty_rows(header: Header) -> Rows:
    """Return the rows of a cache that has no records yet."""
    count = header.clips
    names = [spec.name for specs in header.arrays.values() for spec in specs]
    return Rows(
        status=np.full(count, Status.WAITING, np.uint8),
        lengths={modality: np.zeros(count, np.int64) for modality in MODALITIES},
        crc32c={name: np.zeros(count, np.uint32) for name in names},
        failures={},
        notes={},
        error={modality: np.zeros((count, 2)) for modality in MODALITIES},
    )


def add_record(rows: Rows, header: Header, record: Record) -> None:
    """Copy one shard's record into the rows."""
    span = header.rows(record.shard)
    part = slice(span.start, span.stop)
    rows.status[part] = record.status
    for modality, lengths in rows.lengths.items():
        lengths[part] = record.lengths[modality]
    for name, checksums in rows.crc32c.items():
        checksums[part] = record.crc32c[name]
    for modality in MODALITIES:
        rows.error[modality][part] = record.error[modality]
    rows.failures.update(record.failures)
    rows.notes.update(record.notes)


def unfinished_shards(header: Header, rows: Rows) -> list[int]:
    """Return the shards with clips that are still to be extracted, ascending."""
    waiting = np.isin(rows.status, (Status.WAITING, Status.REDO))
    return np.unique(np.flatnonzero(waiting) // header.shard_clips).tolist()


def is_plain(files: Files, header: Header, spec: ArraySpec) -> bool:
    """Return whether an array's chunks are stored uncompressed in shards, with checksums.

    Raises:
        SchemaMismatch: its metadata does not match the header.
    """
    raw = files.read(f"{spec.name}/{ROOT}")
    try:
        meta = json.loads(raw or b"")
        found = (meta["shape"], meta["data_type"], meta["chunk_grid"]["configuration"])
        sharding = meta["codecs"][0]["configuration"]
    except (ValueError, LookupError, TypeError) as error:
        raise SchemaMismatch(
            f"{files.where}/{spec.name}/{ROOT} is gone or damaged: run "
            "`avcil cache verify --repair`"
        ) from error
    grid = {"chunk_shape": [header.shard_clips, *spec.tail]}
    if found != ([header.clips, *spec.tail], spec.dtype, grid):
        raise SchemaMismatch(
            f"{files.where}/{spec.name} is {found[1]} {found[0]}, "
            f"but its header says {spec.dtype} {[header.clips, *spec.tail]}"
        )
    plain = sharding.get("codecs") in PLAIN_CODECS and sharding.get("index_location") == "end"
    return bool(plain and sharding.get("chunk_shape") == [1, *spec.tail])
