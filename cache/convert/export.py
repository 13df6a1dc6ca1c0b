"""Export a cache to one file that other programs read: HDF5, npz or safetensors.

Each holds, for the clips that have tokens, in the cache's order: `visual` [B, Tv, Dv] and `audio`
[B, Ta, Da] float16, `visual_length`, `audio_length`, `label`, `split` (0 train, 1 val, 2 test) [B],
and `id` [B, bytes], UTF-8 padded with zeros. Clips are written in blocks, one in memory at a time.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from avcil.cache.errors import CacheUnwritable
from avcil.cache.format.create import text_array
from avcil.cache.format.quantize import MODALITIES, Modality
from avcil.cache.reader import FeatureStore
from avcil.cache.schema import SPLITS, Split
from avcil.cache.storage.local import writable
from avcil.runtime.progress import track

Format = Literal["h5", "npz", "safetensors"]
FORMATS: tuple[Format, ...] = get_args(Format)
BLOCK_BYTES = 64 << 20
ANOTHER_FILE = "name a file in a folder that you may write to"


@dataclass(frozen=True, slots=True)
class Column:
    """One array of the file, and a function that yields its rows in blocks."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Callable[[], Iterator[NDArray[Any]]]


def export(
    store: FeatureStore, path: Path, to: Format, *, split: Split | None = None
) -> NDArray[np.int64]:
    """Write the clips that have tokens, of one split or of all, into a new file.

    Returns:
        [B] the rows that were written.

    Raises:
        CacheUnwritable: the file exists, or cannot be written.
        ShardMissing, ShardDamaged: a clip cannot be read.
    """
    rows = store.rows(split)
    partial = path.with_name(f"{path.name}.partial")
    try:
        with writable(path, elsewhere=ANOTHER_FILE):
            if path.exists():
                raise CacheUnwritable(f"{path} already exists: remove it, or name another file")
            path.parent.mkdir(parents=True, exist_ok=True)
            _WRITERS[to](partial, columns(store, rows), _notes(store))
            partial.replace(path)
    finally:
        with suppress(OSError):  # it may not exist, or its folder may not be one
            partial.unlink()
    return rows


def columns(store: FeatureStore, rows: NDArray[np.int64]) -> list[Column]:
    """List the arrays of an exported file."""
    manifest = store.manifest
    ids = tuple(manifest.ids[row] for row in rows)
    splits = [SPLITS.index(manifest.splits[row]) for row in rows]
    small: dict[str, NDArray[Any]] = {
        "visual_length": store.lengths["visual"][rows].astype(np.int32),
        "audio_length": store.lengths["audio"][rows].astype(np.int32),
        "label": manifest.labels[rows].astype(np.int32),
        "split": np.array(splits, np.uint8),
        "id": text_array(ids) if ids else np.zeros((0, 1), np.uint8),
    }
    return [*_tokens(store, rows), *(_column(name, array) for name, array in small.items())]


def _column(name: str, array: NDArray[Any]) -> Column:
    return Column(name, array.shape, array.dtype, lambda: iter([array]))


def _tokens(store: FeatureStore, rows: NDArray[np.int64]) -> Iterator[Column]:
    for modality in MODALITIES:
        tail = store.header.arrays[modality][0].tail
        step = max(1, BLOCK_BYTES // (2 * math.prod(tail)))

        def blocks(name: Modality = modality, step: int = step) -> Iterator[NDArray[Any]]:
            with track(f"export {name}", len(rows), "clips") as bar:
                for first in range(0, len(rows), step):
                    some = rows[first : first + step]
                    yield store.load_tokens(name, some)
                    bar.advance(len(some))

        yield Column(modality, (len(rows), *tail), np.dtype("<f2"), blocks)


def _notes(store: FeatureStore) -> dict[str, str]:
    encoding = store.encoding
    return {
        "dataset": store.manifest.dataset,
        "classes": json.dumps(store.manifest.classes, ensure_ascii=False),
        "encoder": encoding.encoder,
        "fingerprint": encoding.fingerprint,
        "tokens_per_frame": str(encoding.tokens_per_frame),
    }


def _write_h5(path: Path, arrays: list[Column], notes: dict[str, str]) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs.update(notes)
        for column in arrays:
            data = file.create_dataset(column.name, column.shape, column.dtype)
            first = 0
            for block in column.blocks():
                data[first : first + len(block)] = block
                first += len(block)


def _write_npz(path: Path, arrays: list[Column], notes: dict[str, str]) -> None:
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        for column in [*arrays, _column("notes", np.array(json.dumps(notes)))]:
            with archive.open(f"{column.name}.npy", "w", force_zip64=True) as file:
                header = {
                    "descr": np.lib.format.dtype_to_descr(column.dtype),
                    "fortran_order": False,
                    "shape": column.shape,
                }
                np.lib.format.write_array_header_1_0(file, header)
                for block in column.blocks():
                    file.write(block.tobytes())


_SAFE = {"float16": "F16", "int32": "I32", "uint8": "U8"}


def _write_safetensors(path: Path, arrays: list[Column], notes: dict[str, str]) -> None:
    """Write a header and the bytes; the safetensors library would need everything in memory."""
    header: dict[str, object] = {"__metadata__": notes}
    end = 0
    for column in arrays:
        first, end = end, end + math.prod(column.shape) * column.dtype.itemsize
        kind = _SAFE[column.dtype.name]
        header[column.name] = {
            "dtype": kind,
            "shape": list(column.shape),
            "data_offsets": [first, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for column in arrays:
            for block in column.blocks():
                file.write(block.tobytes())


_WRITERS: dict[Format, Callable[[Path, list[Column], dict[str, str]], None]] = {
    "h5": _write_h5,
    "npz": _write_npz,
    "safetensors": _write_safetensors,
}
