"""The same clips in several formats, and ways to read them, for benchmarks/cache.py."""

from __future__ import annotations

import importlib
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from avcil.cache.reader import FeatureStore
from avcil.cache.schema import Clips, Encoding, Manifest, Tokens
from avcil.cache.writer import CacheWriter

ENCODING = Encoding(
    encoder="benchmark",
    fingerprint="benchmark",
    visual_tokens=250,
    visual_width=1024,
    audio_tokens=250,
    audio_width=128,
    visual_rate_hz=25.0,
    audio_rate_hz=25.0,
    seconds=10.0,
)
SHAPES = {"visual": (250, 1024), "audio": (250, 128)}
CLIP_BYTES = sum(2 * tokens * width for tokens, width in SHAPES.values())
BATCH = 256
Rows = NDArray[np.int64]
Load = Callable[[Rows, Clips], None]


def aligned(*shape: int) -> NDArray[np.float16]:
    """Allocate a page-aligned array whose pages are already mapped."""
    size = 2 * int(np.prod(shape))
    raw = np.zeros(size + 4096, np.uint8)
    start = -raw.ctypes.data % 4096
    return raw[start : start + size].view(np.float16).reshape(shape)


def buffer(count: int) -> Clips:
    """Allocate memory for clips."""
    small = [np.zeros(count, np.int64) for _ in range(3)]
    return Clips(aligned(count, *SHAPES["visual"]), aligned(count, *SHAPES["audio"]), *small)


# --- data


@dataclass(frozen=True)
class Files:
    """The same clips in every format."""

    folder: Path
    clips: int

    @property
    def cache(self) -> Path:
        """The cache."""
        return self.folder / "features.zarr"

    def plain(self, name: str) -> Path:
        """One plain array per modality."""
        return self.folder / f"{name}.npy"

    @property
    def hdf5(self) -> Path:
        """AV-CIL's layout: one float32 data set per clip and modality."""
        return self.folder / "clips.h5"

    def drop(self) -> None:
        """Drop all files from the page cache."""
        for path in self.folder.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def tokens_of(row: int, base: NDArray[np.float16]) -> Tokens:
    """Make one clip's tokens, different from all others."""
    scaled = base * np.float16(0.5 + row / 8192)
    return Tokens(visual=scaled[:, :1024], audio=scaled[:, 1024:])


def make(files: Files) -> dict[str, float]:
    """Write all formats; return the write rates in MB/s."""
    shutil.rmtree(files.folder, ignore_errors=True)
    files.folder.mkdir(parents=True)
    base = np.random.default_rng(0).normal(size=(250, 1152)).astype(np.float16)
    rows = [("train", row % 10, f"clip-{row:06d}") for row in range(files.clips)]
    classes = tuple(f"class {i}" for i in range(10))
    manifest = Manifest.of("benchmark", classes, rows)  # type: ignore[arg-type]
    seconds = {"cache": 0.0, "plain": 0.0, "hdf5": 0.0}
    arrays = {
        name: np.lib.format.open_memmap(files.plain(name), "w+", np.float16, (files.clips, *shape))
        for name, shape in SHAPES.items()
    }
    with (
        CacheWriter.open(files.cache, manifest, ENCODING) as writer,
        h5py.File(files.hdf5, "w") as file,
    ):
        for shard in writer.pending():
            rows_here = writer.rows(shard)
            tokens = [tokens_of(row, base) for row in rows_here]
            with timed(seconds, "cache"):
                writer.commit(shard, tokens)
            with timed(seconds, "plain"):
                for name, array in arrays.items():
                    array[rows_here.start : rows_here.stop] = [getattr(t, name) for t in tokens]
                    array.flush()
            with timed(seconds, "hdf5"):
                for row, each in zip(rows_here, tokens, strict=True):
                    for name in SHAPES:
                        file[f"{row}/{name}"] = getattr(each, name).astype(np.float32)
    os.sync()
    return {name: files.clips * CLIP_BYTES / 1e6 / each for name, each in seconds.items()}


class timed:  # noqa: N801
    """Add the seconds of a block to an entry."""

    def __init__(self, seconds: dict[str, float], name: str) -> None:
        self.seconds, self.name = seconds, name

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.name] += time.perf_counter() - self.start


# --- readers


def ours(files: Files) -> Load:
    """Our reader, with all checks."""
    store = FeatureStore.open(files.cache)
    return lambda rows, out: [store.load(rows, out=out)].clear()


def memmap(files: Files) -> Load:
    """Gather with NumPy from a plain file, mapped for this call; checks nothing."""

    def load(rows: Rows, out: Clips) -> None:
        for name in SHAPES:
            mapped = np.load(files.plain(name), mmap_mode="r")
            np.take(mapped, rows, axis=0, out=getattr(out, name)[: len(rows)], mode="clip")

    return load


def kept_memmap(files: Files) -> Load:
    """The same with a permanent mapping, so that pages read earlier cause no faults."""
    mapped = {name: np.load(files.plain(name), mmap_mode="r") for name in SHAPES}

    def load(rows: Rows, out: Clips) -> None:
        for name in SHAPES:
            np.take(mapped[name], rows, axis=0, out=getattr(out, name)[: len(rows)], mode="clip")

    return load


def threaded_preadv(files: Files) -> Load:
    """Read a plain file by position in four threads: the limit when cold; checks nothing."""
    handles = {name: os.open(files.plain(name), os.O_RDONLY) for name in SHAPES}

    def load(rows: Rows, out: Clips) -> None:
        def read(part: NDArray[np.int64]) -> None:
            for name, shape in SHAPES.items():
                size = 2 * shape[0] * shape[1]
                for i in part:
                    os.preadv(
                        handles[name], [getattr(out, name)[i].data], 128 + int(rows[i]) * size
                    )

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(read, np.array_split(np.arange(len(rows)), 16)))

    return load


def runs(rows: Rows) -> Iterator[tuple[int, int]]:
    """Cut sorted rows into ranges of positions without gaps."""
    edges = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
    return itertools.pairwise(edges)


def zarr_runs(
    files: Files, pipeline: str = "zarr.core.codec_pipeline.BatchedCodecPipeline"
) -> Load:
    """zarr-python, one slice per run of neighboring rows, which is its fastest way."""
    with zarr.config.set({"codec_pipeline.path": pipeline}):
        group = zarr.open_group(files.cache, mode="r")
        arrays: dict[str, Any] = {name: group[name] for name in SHAPES}

    def load(rows: Rows, out: Clips) -> None:
        ordered = np.sort(rows)
        for name, array in arrays.items():
            for first, last in runs(ordered):
                part = array[int(ordered[first]) : int(ordered[last - 1]) + 1]
                getattr(out, name)[first:last] = part

    return load


def zarrs_runs(files: Files) -> Load:
    """The same through zarrs' pipeline in Rust; it does not check these checksums."""
    importlib.import_module("zarrs")

    return zarr_runs(files, "zarrs.ZarrsCodecPipeline")


def tensorstore(files: Files) -> Load:
    """TensorStore, one future per run."""
    ts = importlib.import_module("tensorstore")

    arrays = {}
    for name in SHAPES:
        place = {"driver": "file", "path": str(files.cache / name)}
        arrays[name] = ts.open({"driver": "zarr3", "kvstore": place}, read=True).result()

    def load(rows: Rows, out: Clips) -> None:
        ordered = np.sort(rows)
        for name, array in arrays.items():
            futures = [
                (first, last, array[int(ordered[first]) : int(ordered[last - 1]) + 1].read())
                for first, last in runs(ordered)
            ]
            for first, last, future in futures:
                getattr(out, name)[first:last] = future.result()

    return load


class Hdf5Clips(Dataset[Any]):
    """AV-CIL's data set, which reads each clip by name on access."""

    def __init__(self, path: Path, rows: Rows) -> None:
        self.path, self.rows = path, rows
        self.file: h5py.File | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        self.file = self.file or h5py.File(self.path, "r")
        clip: Any = self.file[str(self.rows[index])]
        return tuple(clip[name][()] for name in SHAPES)


def hdf5_loader(files: Files) -> Load:
    """HDF5 through a torch DataLoader with 4 workers and batches of 256; checks nothing."""

    def load(rows: Rows, out: Clips) -> None:
        loader = DataLoader(Hdf5Clips(files.hdf5, rows), batch_size=BATCH, num_workers=4)
        for _ in loader:
            pass

    return load


KEPT = "memmap, mapping kept"
READERS: dict[str, Callable[[Files], Load]] = {
    "ours": ours,
    "memmap": memmap,
    KEPT: kept_memmap,
    "threaded preadv": threaded_preadv,
    "zarr-python": zarr_runs,
    "zarrs": zarrs_runs,
    "TensorStore": tensorstore,
    "HDF5 DataLoader": hdf5_loader,
}
