"""Measure the memory that training on a large data set takes.

    python -m benchmarks.memory --folder DIR                # VGGSound-100's clips; 2.5 GB of disk
    python -m benchmarks.memory --folder DIR --scale 0.02   # a trial

The cache has the clips of VGGSound-100 (51,195 to train on, 5,000 to validate, 5,000 to test, 100
classes) with random tokens, 250 with 64 and 250 with 16 channels per clip: 40 kB instead of 576 kB.
Ten tasks are trained for one epoch each, in a new process for each placement of the tokens, with
the guided method and a memory of 1,500 exemplars. Prints the size of the whole cache and of the
largest task, and the peak memory above that of the process before training.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avcil.cache.reader import FeatureStore
from avcil.cache.schema import Encoding, Manifest, Split, Tokens
from avcil.cache.writer import CacheWriter

TOKENS, VISUAL, AUDIO = 250, 64, 16
CLASSES, TASKS = 100, 10
COUNTS: dict[Split, int] = {"train": 51_195, "val": 5_000, "test": 5_000}
EXEMPLARS = 1_500
SETTINGS: dict[str, object] = {"tasks": TASKS, "epochs": 1, "head.width": 64, "head.heads": 4}


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Time and memory of training with one placement."""

    tier: str
    start_mb: float
    peak_mb: float
    seconds: float


def make(path: Path, scale: float) -> None:
    """Write the cache with a fraction of the clips."""
    names = tuple(f"class {label:03d}" for label in range(CLASSES))
    clips = [
        (split, number % CLASSES, f"{split}-{number:05d}")
        for split, count in COUNTS.items()
        for number in range(max(CLASSES, round(scale * count)))
    ]
    manifest = Manifest.of("vs100-shaped", names, clips)
    encoding = Encoding(
        encoder="random",
        fingerprint="random",
        random_weights=True,
        visual_tokens=TOKENS,
        visual_width=VISUAL,
        audio_tokens=TOKENS,
        audio_width=AUDIO,
        visual_rate_hz=25.0,
        audio_rate_hz=25.0,
        seconds=10.0,
    )
    chance = np.random.default_rng(0)
    with CacheWriter.open(path, manifest, encoding) as writer:
        for shard in writer.pending():
            size = len(writer.rows(shard))
            drawn = chance.standard_normal((size, TOKENS, VISUAL + AUDIO), np.float32)
            made = drawn.astype(np.float16)
            writer.commit(shard, [Tokens(each[:, :VISUAL], each[:, VISUAL:]) for each in made])


def train(path: Path, runs: Path, tier: str, scale: float) -> Usage:
    """Train all tasks in this process and measure time and memory."""
    from avcil.incremental.config.resolve import Request
    from avcil.incremental.data.placement import Placement
    from avcil.incremental.launch.run import new_results
    from avcil.incremental.launch.schedule import resolve_all
    from avcil.incremental.runs.folder import RunFolder
    from avcil.incremental.train.precision import compute_deterministically
    from avcil.incremental.train.scenario import Scenario
    from avcil.incremental.train.trainer import Trainer
    from avcil.runtime.device import choose_device
    from avcil.runtime.progress import track

    compute_deterministically()
    device = choose_device("cpu")
    store = FeatureStore.open(path)
    memory = {"memory": max(CLASSES, round(scale * EXEMPLARS))}
    (config,) = resolve_all(store, [Request(settings=SETTINGS | memory)])
    folder, scenario = RunFolder.of(runs, config), Scenario(config, store)
    results = new_results(config, store, scenario, device)
    folder.start(config, results)
    placement = Placement(device, tier)  # type: ignore[arg-type]
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    start, began = memory_mb("VmRSS"), time.perf_counter()
    with track(tier, TASKS, "clips") as bar:
        Trainer(config, scenario, folder, results, placement).run(bar)
    peak, seconds = memory_mb("VmHWM"), time.perf_counter() - began
    return Usage(tier=tier, start_mb=start, peak_mb=peak, seconds=seconds)


def memory_mb(field: str) -> float:
    """Return a value from this process's status in /proc."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6


def sizes(path: Path) -> dict[str, float]:
    """Return the tokens of all clips and of the largest task, in MB."""
    store = FeatureStore.open(path)
    train = store.manifest.labels[store.rows("train")]
    clip_mb = 2 * TOKENS * (VISUAL + AUDIO) / 1e6
    task = np.bincount(train // (CLASSES // TASKS)).max()
    return {"all clips": len(store) * clip_mb, "largest task": float(task) * clip_mb}


def main() -> None:
    """Make the cache, train in each tier, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="emptied, then filled")
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the clips")
    parser.add_argument("--tiers", nargs="+", default=["device", "stream"])
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    path = options.folder / "features.zarr"
    make(path, options.scale)
    size = sizes(path)
    print(json.dumps({name: round(mb) for name, mb in size.items()}))
    print(
        "| placement | before training, MB | peak above that, MB | of all clips | of a task | s |"
    )
    print("|---|---|---|---|---|---|")
    for tier in options.tiers:
        with multiprocessing.get_context("spawn").Pool(1) as fresh:
            used = fresh.apply(train, (path, options.folder / tier, tier, options.scale))
        above = used.peak_mb - used.start_mb
        shares = f"{above / size['all clips']:.2f} | {above / size['largest task']:.2f}"
        print(f"| {tier} | {used.start_mb:.0f} | {above:.0f} | {shares} | {used.seconds:.0f} |")


if __name__ == "__main__":
    main()
