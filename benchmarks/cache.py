"""Compare the speed of the cache with other ways to store the same tokens.

    python -m benchmarks.cache --folder DIR                          # 2,560 clips, 6 GB of disk
    python -m benchmarks.cache --folder DIR --clips 256 --repeats 3  # a trial

Clips have visual [250, 1024] and audio [250, 128] float16, 576 kB. Every reader fills the same
page-aligned arrays with a new selection in each call. Readers take turns, so that other load on the
machine affects all of them equally; figures are medians. "Cold" drops the files from the page cache
before each call (with posix_fadvise, which needs no privileges; a hypervisor may still cache them).

Measured on two idle cores: task load 0.63 x memmap warm and 0.99 x cold, random batches 0.50 x warm
and 7.8 x cold (docs/benchmarks/). Prints one JSON line with versions and machine, then a table.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from avcil.cache.reader import FeatureStore
from avcil.cache.schema import Clips
from benchmarks.cache_files import BATCH, CLIP_BYTES, KEPT, READERS, Files, Load, Rows, buffer, make


def selections(clips: int, chance: np.random.Generator) -> dict[str, Callable[[], Rows]]:
    """Return functions that draw a new selection of rows at each call."""
    task = max(1, clips // 10)

    def task_load() -> Rows:
        return np.arange(task) + chance.integers(clips - task)

    def exemplars() -> Rows:
        return np.sort(chance.choice(clips, min(clips, 340), replace=False))

    def batch() -> Rows:
        return chance.choice(clips, min(clips, BATCH), replace=False)

    return {"task load": task_load, "exemplars": exemplars, "random batch": batch}


def measure(files: Files, repeats: int) -> dict[tuple[str, str, str], float]:
    """Return GB/s by (workload, warm or cold, reader)."""
    out = buffer(max(340, BATCH, files.clips // 10))
    result = {}
    for state in ("warm", "cold"):
        loads = {}  # unmaps files: mapped pages cannot be dropped from the page cache
        loads = {name: make_load(files) for name, make_load in available(state).items()}
        for workload, choose in selections(files.clips, np.random.default_rng(0)).items():
            seconds: dict[str, list[float]] = {name: [] for name in loads}
            for _ in range(repeats):
                for name, load in loads.items():
                    rows = choose()
                    prepare(files, state, load, rows, out)
                    start = time.perf_counter()
                    load(rows, out)
                    seconds[name].append((time.perf_counter() - start) / len(rows))
            for name, each in seconds.items():
                result[workload, state, name] = CLIP_BYTES / 1e9 / statistics.median(each)
        if state == "cold":
            result |= scan(files, loads)
    return result


def prepare(files: Files, state: str, load: Load, rows: Rows, out: Clips) -> None:
    """Fill or empty the page cache."""
    if state == "cold":
        files.drop()
    else:
        load(rows, out)  # reads the same clips; no reader keeps results


def scan(files: Files, loads: dict[str, Load]) -> dict[tuple[str, str, str], float]:
    """Read everything once, in order, cold."""
    result = {}
    blocks = np.array_split(np.arange(files.clips), max(1, files.clips // BATCH))
    out = buffer(max(map(len, blocks)))
    for name, load in loads.items():
        files.drop()
        start = time.perf_counter()
        for rows in blocks:
            load(rows, out)
        seconds = time.perf_counter() - start
        result["full scan", "cold", name] = files.clips * CLIP_BYTES / 1e9 / seconds
    return result


def available(state: str) -> dict[str, Callable[[Files], Load]]:
    """Omit readers whose library is not installed, and the one that cannot be cold."""
    needs = {"zarrs": "zarrs", "TensorStore": "tensorstore"}
    return {
        name: reader
        for name, reader in READERS.items()
        if (name not in needs or importlib.util.find_spec(needs[name]))
        and (state == "warm" or name != KEPT)
    }


def peak_memory(files: Files) -> float:
    """Return the peak memory of loading a task into new arrays, divided by the task's size."""
    store = FeatureStore.open(files.cache)
    rows = np.arange(min(files.clips, max(64, files.clips // 10)))
    store.load(rows[:8])
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before = memory_kb("VmRSS")
    clips = store.load(rows)
    return (memory_kb("VmHWM") - before) * 1024 / (len(clips.labels) * CLIP_BYTES)


def memory_kb(field: str) -> int:
    """Return a value from this process's status in /proc."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def disk_ratio(files: Files) -> float:
    """Return the size of the cache divided by that of its numbers."""
    size = sum(path.stat().st_size for path in files.cache.rglob("*") if path.is_file())
    return size / (files.clips * CLIP_BYTES)


def versions() -> dict[str, str]:
    """Return the versions that the figures depend on."""
    names = ("avcil", "numpy", "zarr", "torch", "h5py", "zarrs", "tensorstore")
    found = {"python": platform.python_version(), "cores": str(os.cpu_count())}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def print_table(rates: dict[tuple[str, str, str], float]) -> None:
    """Print GB/s and the ratio to memmap, as Markdown."""
    columns = list(dict.fromkeys((workload, state) for workload, state, _ in rates))
    print("| reader | " + " | ".join(f"{w}, {s}" for w, s in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for reader in dict.fromkeys(name for _, _, name in rates):
        cells = []
        for workload, state in columns:
            rate = rates.get((workload, state, reader))
            base = rates[workload, state, "memmap"]
            cells.append("" if rate is None else f"{rate:.2f} ({rate / base:.2f} x)")
        print(f"| {reader} | " + " | ".join(cells) + " |")


def main() -> None:
    """Make the data, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="emptied, then filled")
    parser.add_argument("--clips", type=int, default=2560)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    files = Files(options.folder, options.clips)
    writing = make(files)
    with multiprocessing.get_context("spawn").Pool(1) as fresh:
        peak = fresh.apply(peak_memory, (files,))  # memory that this process holds would be reused
    rates = measure(files, options.repeats)
    facts = {
        "versions": versions(),
        "clips": files.clips,
        "write_mb_s": {name: round(rate) for name, rate in writing.items()},
        "peak_memory_ratio": round(peak, 3),
        "disk_ratio": round(disk_ratio(files), 5),
        "gb_s": {" / ".join(key): round(rate, 3) for key, rate in rates.items()},
    }
    print(json.dumps(facts))
    print_table(rates)


if __name__ == "__main__":
    main()
