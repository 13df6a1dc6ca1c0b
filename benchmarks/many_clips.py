"""Measure what a cache of very many clips costs: to create, write, open, resume, verify, read.

    python -m benchmarks.many_clips --folder DIR                  # 1,000,000 clips; 0.3 GB of disk
    python -m benchmarks.many_clips --folder DIR --clips 20000    # a trial

A clip has two visual tokens of 8 channels and one audio token of 8, so that what is measured is
the list of clips and the records, not the tokens. 50 shards are written; the first is then copied
to the places of the others. Each step runs in a new process. A resume opens the cache for writing
and finds the one shard that is missing; a task is the training clips of a tenth of the classes,
read in full. Prints seconds and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from avcil.cache.format.create import PER_SHARD
from avcil.cache.format.layout import dump_record, parse_header, parse_record, record_key
from avcil.cache.reader import FeatureStore
from avcil.cache.schema import Encoding, Manifest, Split, Tokens
from avcil.cache.verify import verify
from avcil.cache.writer import CacheWriter

CLASSES, TASKS = 300, 10
WRITTEN = 50
"""Shards that are written; the others are copies of the first."""
SPLITS: tuple[Split, ...] = ("train",) * 8 + ("val", "test")
ENCODING = Encoding(
    encoder="random",
    fingerprint="random",
    random_weights=True,
    visual_tokens=2,
    visual_width=8,
    audio_tokens=1,
    audio_width=8,
    visual_rate_hz=1.0,
    audio_rate_hz=1.0,
    seconds=2.0,
)


def manifest(clips: int) -> Manifest:
    """Return a list of clips with ids as long as those of VGGSound."""
    names = tuple(f"class {label:03d}" for label in range(CLASSES))
    listed = [
        (SPLITS[number // CLASSES % len(SPLITS)], number % CLASSES, f"{number:011d}_000010")
        for number in range(clips)
    ]
    return Manifest.of("many", names, listed)


def create(path: Path, clips: int) -> str:
    """Create the cache without tokens."""
    with CacheWriter.open(path, manifest(clips), ENCODING) as writer:
        return f"{writer.shards} shards"


def write(path: Path, clips: int) -> str:
    """Write some shards."""
    with CacheWriter.open(path, manifest(clips), ENCODING) as writer:
        shards = writer.pending()[:WRITTEN]
        for shard in shards:
            writer.commit(shard, _tokens(len(writer.rows(shard))))
    return f"{len(shards)} shards through the writer"


def copy(path: Path, clips: int) -> str:
    """Copy the first shard to all others but the last: faster than to write them, and the same."""
    header = parse_header((path / "zarr.json").read_bytes(), str(path))
    raw = (path / record_key(0)).read_bytes()
    record = parse_record(raw, header, 0, str(path))
    names = [*PER_SHARD, *(spec.name for specs in header.arrays.values() for spec in specs)]
    parts = [file for name in names for file in _files(path / name / "c" / "0")]
    for shard in range(WRITTEN, header.shards - 1):
        for part in parts:
            name, chunk, _, *rest = part.relative_to(path).parts
            target = path.joinpath(name, chunk, str(shard), *rest)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(part, target)
        (path / record_key(shard)).write_bytes(dump_record(replace(record, shard=shard)))
    return f"{header.shards - 1 - WRITTEN} more shards"


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def resume(path: Path, clips: int) -> str:
    """Find the shard that is missing, and write it."""
    with CacheWriter.open(path, manifest(clips), ENCODING) as writer:
        missing = writer.pending()
        for shard in missing:
            writer.commit(shard, _tokens(len(writer.rows(shard))))
    return f"{len(missing)} shard missing"


def _tokens(clips: int) -> list[Tokens]:
    drawn = np.random.default_rng(0).standard_normal((clips, 3, 8), np.float32)
    return [Tokens(each[:2], each[2:]) for each in drawn]


def open_cache(path: Path, clips: int) -> str:
    """Open the cache for reading."""
    return f"{len(FeatureStore.open(path))} clips"


def read_task(path: Path, clips: int) -> str:
    """Read the training clips of the classes of one task."""
    store = FeatureStore.open(path)
    rows = store.rows("train")
    chosen = rows[store.manifest.labels[rows] < CLASSES // TASKS]
    store.load(chosen)
    return f"{len(chosen)} clips"


def check(path: Path, clips: int) -> str:
    """Verify every clip."""
    report = verify(path)
    return f"{report.clips} clips, {len(report.damages)} damages"


STEPS: dict[str, Callable[[Path, int], str]] = {
    "create": create,
    "write": write,
    "copy": copy,
    "resume": resume,
    "open": open_cache,
    "read a task": read_task,
    "verify": check,
}


def measured(name: str, path: Path, clips: int) -> str:
    """Run a step in this process; return its line of the table."""
    began, computed = time.perf_counter(), time.process_time()
    said = STEPS[name](path, clips)
    seconds, cpu = time.perf_counter() - began, time.process_time() - computed
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return f"| {name} | {seconds:.1f} | {cpu:.1f} | {peak:,.0f} | {said} |"


def main() -> None:
    """Run all steps one after the other and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="emptied, then filled")
    parser.add_argument("--clips", type=int, default=1_000_000)
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    path = options.folder / "features.zarr"
    print("| step | s | CPU s | peak, MB | |\n|---|---|---|---|---|", flush=True)
    for name in STEPS:
        with multiprocessing.get_context("spawn").Pool(1) as fresh:
            print(fresh.apply(measured, (name, path, options.clips)), flush=True)
    files = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
    print(json.dumps({"files": len(files), "MB": round(sum(files) / 1e6)}))


if __name__ == "__main__":
    main()
