"""Create an empty cache: all arrays at full size, the list of clips, and finally the header."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.codec import BytesBytesCodec
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
"""The small arrays, one chunk per shard: data type and fill value."""
LISTING = {"id": "uint8", "split": "uint8", "label": "int32"}
"""Data types of the arrays that list the clips."""
SOFTWARE = ("avcil", "numpy", "zarr", "torch", "timm", "transformers", "av")


def new_header(
    manifest: Manifest, encoding: Encoding, storage: Storage, shard_clips: int | None
) -> Header:
    """Return the header of a new cache."""
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
    """Create the arrays, then the header; until it is written, the cache does not exist."""
    # A killed creation may have left arrays. The lock stays, as this process holds it.
    for name in set(files.names("")) - {ROOT}:
        files.delete(f"{name}/{ROOT}")
        files.delete_folder(f"{name}/c")
    splits = np.array([SPLITS.index(split) for split in manifest.splits], np.uint8)
    labels = manifest.labels.astype(np.int32)
    columns: tuple[NDArray[Any], ...] = (text_array(manifest.ids), splits, labels)
    for name, column in zip(LISTING, columns, strict=True):
        create_column(files.store, name, column.shape)[:] = column
    for specs in header.arrays.values():
        for spec in specs:
            create_tokens(files.store, header, spec)
    for name in PER_SHARD:
        create_small(files.store, header, name)
    files.write(ROOT, dump_header(header))


def create_column(store: Store, name: str, shape: tuple[int, ...]) -> zarr.Array[Any]:
    """Create one of the arrays that list the clips, in one chunk."""
    return _create(store, name, shape=shape, chunks=shape, dtype=LISTING[name], fill_value=0)


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
    """Create one of the arrays of tokens, at full size and empty."""
    zstd = [ZstdCodec(level=ZSTD_LEVEL)] if header.storage.compression == "zstd" else []
    _create(
        store,
        spec.name,
        compressors=[*zstd, Crc32cCodec()],
        shape=(header.clips, *spec.tail),
        chunks=(1, *spec.tail),
        shards=(header.shard_clips, *spec.tail),
        dtype=spec.dtype,
        fill_value=spec.fill,
    )


def create_small(store: Store, header: Header, name: str) -> None:
    """Create one of the arrays with one number per clip."""
    shape, chunks, (dtype, fill) = (header.clips,), (header.shard_clips,), PER_SHARD[name]
    _create(store, name, shape=shape, chunks=chunks, dtype=dtype, fill_value=fill)


def _create(
    store: Store,
    name: str,
    *,
    compressors: Sequence[BytesBytesCodec] = (Crc32cCodec(),),
    **options: Any,
) -> zarr.Array[Any]:
    """Create an array with checksums, in which every chunk is stored."""
    return zarr.create_array(
        store,
        name=name,
        compressors=list(compressors),
        filters=None,
        config={"write_empty_chunks": True},
        **options,
    )
