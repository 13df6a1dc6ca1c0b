"""Make an empty cache: every array at full size, the list of clips, and last the header."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.codecs import Crc32cCodec, ZstdCodec

from avcil.cache.format.layout import (
    ROOT,
    Header,
    Status,
    default_shard_clips,
    dump_header,
    manifest_digest,
)
from avcil.cache.format.quantize import ArraySpec
from avcil.cache.schema import SPLITS, Encoding, Manifest, Storage
from avcil.cache.storage.base import Files

ZSTD_LEVEL = 1
PER_SHARD = {
    "visual_length": ("int32", -1),
    "audio_length": ("int32", -1),
    "status": ("uint8", int(Status.WAITING)),
}
"""The small arrays, one chunk a shard: type and fill value."""
LISTING = {"id": "uint8", "split": "uint8", "label": "int32"}
"""The arrays that list the clips: type."""
SOFTWARE = ("avcil", "numpy", "zarr", "torch", "timm", "transformers", "av")


def new_header(
    manifest: Manifest, encoding: Encoding, storage: Storage, shard_clips: int | None
) -> Header:
    """Describe a cache that is to be made."""
    if not len(manifest):
        raise ValueError("a cache needs at least one clip")
    if shard_clips is not None and shard_clips < 1:
        raise ValueError(f"shard_clips must be at least 1, not {shard_clips}")
    return Header(
        dataset=manifest.dataset,
        classes=manifest.classes,
        clips=len(manifest),
        shard_clips=shard_clips or default_shard_clips(len(manifest)),
        encoding=encoding,
        storage=storage,
        manifest=manifest_digest(manifest),
        software=_software(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _software() -> Mapping[str, str]:
    found = {}
    for name in SOFTWARE:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def create(files: Files, header: Header, manifest: Manifest) -> None:
    """Make the arrays, then the header: before it stands there is no cache."""
    _clear(files)
    _write_manifest(files.store, manifest)
    for specs in header.arrays.values():
        for spec in specs:
            create_tokens(files.store, header, spec)
    for name in PER_SHARD:
        create_small(files.store, header, name)
    files.write(ROOT, dump_header(header))


def _clear(files: Files) -> None:
    """Remove the arrays of a creation that was killed; the lock, which we hold, stays."""
    for name in set(files.names("")) - {ROOT}:
        files.delete(f"{name}/{ROOT}")
        files.delete_folder(f"{name}/c")


def _write_manifest(store: Store, manifest: Manifest) -> None:
    splits = np.array([SPLITS.index(split) for split in manifest.splits], np.uint8)
    labels = manifest.labels.astype(np.int32)
    columns: tuple[NDArray[Any], ...] = (text_array(manifest.ids), splits, labels)
    for name, column in zip(LISTING, columns, strict=True):
        create_column(store, name, column.shape)[:] = column


def create_column(store: Store, name: str, shape: tuple[int, ...]) -> zarr.Array[Any]:
    """Make one of the arrays that list the clips, in one chunk."""
    return zarr.create_array(
        store,
        name=name,
        shape=shape,
        chunks=shape,
        dtype=LISTING[name],
        compressors=[Crc32cCodec()],
        filters=None,
        fill_value=0,
        config={"write_empty_chunks": True},
    )


def text_array(texts: tuple[str, ...]) -> NDArray[np.uint8]:
    """Return [N, bytes] UTF-8, padded with zeros: Zarr v3 has no settled type for strings."""
    raw = [text.encode() for text in texts]
    if any(not text or b"\0" in text for text in raw):
        raise ValueError("a clip's id must be a text of at least one character, without NUL")
    width = max(map(len, raw))
    return np.frombuffer(b"".join(text.ljust(width, b"\0") for text in raw), np.uint8).reshape(
        len(raw), width
    )


def create_tokens(store: Store, header: Header, spec: ArraySpec) -> None:
    """Make one of the arrays of tokens, at full size and empty."""
    compressors: list[Crc32cCodec | ZstdCodec] = [Crc32cCodec()]
    if header.storage.compression == "zstd":
        compressors.insert(0, ZstdCodec(level=ZSTD_LEVEL))
    zarr.create_array(
        store,
        name=spec.name,
        shape=(header.clips, *spec.tail),
        chunks=(1, *spec.tail),
        shards=(header.shard_clips, *spec.tail),
        dtype=spec.dtype,
        compressors=compressors,
        filters=None,
        fill_value=spec.fill,
        config={"write_empty_chunks": True},
    )


def create_small(store: Store, header: Header, name: str) -> None:
    """Make one of the arrays that have a number a clip."""
    dtype, fill = PER_SHARD[name]
    zarr.create_array(
        store,
        name=name,
        shape=(header.clips,),
        chunks=(header.shard_clips,),
        dtype=dtype,
        compressors=[Crc32cCodec()],
        filters=None,
        fill_value=fill,
        config={"write_empty_chunks": True},
    )
