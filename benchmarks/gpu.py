"""Run every check and measurement that needs a GPU, and write a page about it.

    python -m benchmarks.gpu                          # on a GPU; meant to take less than 9 minutes
    python -m benchmarks.gpu --device cpu --small     # a trial of the script itself

Needs only a checkout and the development dependencies. Each part runs in a process of its own, so
that one that fails or hangs costs that part alone:

- tests: `pytest -m gpu`;
- tokens: clips are encoded with towers of SAM-Audio's size and random weights, twice in the default
  precision and once in float32: equal tokens, and their cosine beside float32;
- waits: how often the host waits for the GPU within a training step;
- resume: a run with dropout that is stopped and resumed against one that is not, bit for bit;
- parallel: four runs, one after the other and two at once: seconds, and equal weights;
- training: `benchmarks.train`;
- extraction: `benchmarks.extract`.

Prints one JSON line, and writes docs/benchmarks/gpu_<card>_<date>.md unless --output names another
file. Exit status 1 if a part failed.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from avcil.cache.reader import FeatureStore
from avcil.extract.encoders.base import Precision
from avcil.extract.pipeline import extract
from avcil.extract.plan import Settings
from avcil.incremental.config.resolve import Request
from avcil.incremental.contract.toy import write_toy_cache
from avcil.incremental.launch.schedule import resolve_all, train
from avcil.runtime.stopping import ask_to_stop
from benchmarks.extract import SHAPES, repeated, write_files

PARTS = ("tests", "tokens", "waits", "resume", "parallel", "training", "extraction")
LIMIT_S = 240
"""Most seconds of a part."""
STOP_AFTER = 25
"""Steps before a run is stopped: in its second task."""
SMALL_RUN: dict[str, object] = {
    "tasks": 3, "epochs": 6, "memory": 12, "batch_size": 8, "exemplar_batch_size": 4,
    "head.width": 64, "head.dropout": 0.2,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """On which device, and how much."""

    device: str
    small: bool


def tokens(where: Where, folder: Path) -> str:
    """Encode the same clips several times and compare the tokens."""
    device, shape = torch.device(where.device), SHAPES["tiny" if where.small else "large"]
    encoder = shape.load(device)
    clips = repeated(write_files(folder, shape, encoder.sample_rate), 16 if where.small else 48)
    settings = Settings(seconds=shape.seconds, visual_rate_hz=shape.rate_hz, workers=2)

    def encoded(name: str, precision: Precision) -> tuple[np.ndarray, np.ndarray]:
        encoder.precision = precision
        extract(clips, encoder, folder / name, settings)
        store = FeatureStore.open(folder / name)
        loaded = store.load(store.rows())
        return loaded.visual.astype(np.float32), loaded.audio.astype(np.float32)

    usual = encoder.precision
    first, second = encoded("first.zarr", usual), encoded("second.zarr", usual)
    exact = encoded("exact.zarr", "fp32")
    equal = all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
    lines = [f"- {len(clips.clips)} clips in {usual}; the same tokens again: {equal}"]
    for name, one, other in zip(("visual", "audio"), first, exact, strict=True):
        products = (one * other).sum(-1)
        cosines = products / (np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1))
        lines.append(f"- cosine of {name} tokens beside float32: at least {cosines.min():.6f}")
    assert equal, "tokens of a second extraction differ"
    return "\n".join(lines)


def waits(where: Where, folder: Path) -> str:
    """Count the warnings of PyTorch about waiting for the GPU, within steps of training."""
    from avcil.incremental.train import fit
    from avcil.incremental.train.step import Step

    counts: list[int] = []

    class Counted(Step):
        def __call__(self, *inputs: object) -> dict[str, torch.Tensor]:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                if where.device == "cuda":
                    torch.cuda.set_sync_debug_mode("warn")
                terms = super().__call__(*inputs)  # type: ignore[arg-type]
                if where.device == "cuda":
                    torch.cuda.set_sync_debug_mode("default")
            counts.append(sum("synchronizing" in str(each.message) for each in caught))
            return terms

    fit.Step = Counted  # type: ignore[attr-defined]
    _train(where, folder / "runs", _store(folder), seeds=1)
    steady = counts[4:]
    return f"- {len(steady)} steps: at most {max(steady)} waits in one, {sum(steady)} in all"


def resume(where: Where, folder: Path) -> str:
    """Stop a run with dropout within its second task, resume it, and compare with a whole one."""
    from avcil.incremental.train import fit
    from avcil.incremental.train.step import Step

    store = _store(folder)
    _train(where, folder / "whole", store, seeds=1)
    taken = [0]

    class Stopping(Step):
        def __call__(self, *inputs: object) -> dict[str, torch.Tensor]:
            taken[0] += 1
            if taken[0] == STOP_AFTER:
                ask_to_stop()
            return super().__call__(*inputs)  # type: ignore[arg-type]

    fit.Step = Stopping  # type: ignore[attr-defined]
    try:
        _train(where, folder / "stopped", store, seeds=1)
    except KeyboardInterrupt:
        _train(where, folder / "stopped", store, seeds=1)
    else:
        raise AssertionError("the run was not stopped")
    assert _weights(folder / "whole") == _weights(folder / "stopped"), "the weights differ"
    steps = f"stopped after step {STOP_AFTER} of {taken[0]}"
    return f"- {steps} and resumed: the weights are equal, bit for bit"


def parallel(where: Where, folder: Path) -> str:
    """Train four runs one after the other, and two at once."""
    store, seconds = _store(folder), []
    for at_once in (1, 2):
        start = time.perf_counter()
        _train(where, folder / str(at_once), store, seeds=4, parallel=at_once)
        seconds.append(time.perf_counter() - start)
    assert _weights(folder / "1") == _weights(folder / "2"), "the weights differ"
    return f"- one at a time {seconds[0]:.1f} s, two at once {seconds[1]:.1f} s, equal weights"


def _store(folder: Path) -> FeatureStore:
    return FeatureStore.open(write_toy_cache(folder / "features.zarr"))


def _train(where: Where, runs: Path, store: FeatureStore, seeds: int, parallel: int = 1) -> None:
    requests = [Request(seed=seed, settings=SMALL_RUN) for seed in range(seeds)]
    train(store, resolve_all(store, requests), runs, where.device, parallel=parallel)


def _weights(runs: Path) -> dict[str, bytes]:
    files = sorted(runs.rglob("*.safetensors"))
    return {str(file.relative_to(runs)): file.read_bytes() for file in files}


def command(part: str, where: Where, folder: Path) -> list[str]:
    """Return what runs a part."""
    python, small = [sys.executable, "-m"], where.small
    device = ["--device", where.device]
    if part == "tests":
        return [*python, "pytest", "-q", "-m", "gpu"]
    if part == "extraction":
        size = ["--clips", "16", "--repeats", "1"] if small else ["--encoder", "large"]
        return [*python, "benchmarks.extract", *device, *size]
    if part == "training":
        work = "1" if small else "640000" if where.device == "cuda" else "40000"
        size = ["--work", work, *(["--repeats", "1", "--tokens", "10"] if small else [])]
        return [*python, "benchmarks.train", "--folder", str(folder / "train"), *device, *size]
    return [*python, "benchmarks.gpu", "--part", part, *device, *(["--small"] if small else [])]


IN_PROCESS: dict[str, Callable[[Where, Path], str]] = {
    "tokens": tokens, "waits": waits, "resume": resume, "parallel": parallel,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of a part."""

    part: str
    failed: str
    """Why; empty if it did not."""
    seconds: float
    text: str


def run_part(part: str, where: Where, folder: Path) -> Outcome:
    """Run a part in a process of its own."""
    start, failed = time.perf_counter(), ""
    try:
        done = subprocess.run(
            command(part, where, folder),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        text, last = done.stdout.strip(), (done.stderr.strip().splitlines() or [""])[-1]
        if done.returncode:
            failed = f"exit status {done.returncode}: {last or text.splitlines()[-1:]}"
    except subprocess.TimeoutExpired as late:
        text, failed = str(late.stdout or ""), f"took more than {LIMIT_S} s"
    seconds = time.perf_counter() - start
    return Outcome(part=part, failed=failed, seconds=seconds, text=text)


def facts(where: Where) -> dict[str, str]:
    """Return the machine and the versions."""
    cuda = where.device == "cuda"
    names = ("avcil", "torch", "numpy", "zarr", "av")
    return {
        "card": torch.cuda.get_device_name() if cuda else "cpu",
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def page(known: dict[str, str], outcomes: list[Outcome], size: str) -> str:
    """Return the page about all parts."""
    lines = [
        f"# {known['card']}, {known['date']}",
        f"    python -m benchmarks.gpu{size}",
        ", ".join(f"{name} {value}" for name, value in known.items() if name not in ("card",)),
    ]
    for each in outcomes:
        lines.append(f"## {each.part}, {each.seconds:.0f} s")
        lines += [f"**Failed**: {each.failed}"] if each.failed else []
        lines += [each.text] if each.text else []
    return "\n\n".join(lines) + "\n"


def main() -> None:
    """Run all parts, or one, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--small", action="store_true", help="small sizes, to try the script")
    parser.add_argument("--output", type=Path, help="the page")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--part", choices=list(IN_PROCESS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    where = Where(device=options.device, small=options.small)
    with tempfile.TemporaryDirectory() as folder:
        if options.part:
            print(IN_PROCESS[options.part](where, Path(folder)))
            return
        if where.device == "cuda" and not torch.cuda.is_available():
            sys.exit("there is no GPU: give --device cpu --small to try the script")
        parts = [part for part in options.parts if part != "tests" or where.device == "cuda"]
        outcomes = []
        for part in parts:
            outcomes.append(run_part(part, where, Path(folder)))
            said = outcomes[-1].failed or "done"
            print(f"{part}: {said}, {outcomes[-1].seconds:.0f} s", file=sys.stderr, flush=True)
    known = facts(where)
    states = {each.part: each.failed or round(each.seconds, 1) for each in outcomes}
    print(json.dumps(known | {"parts": states}))
    card = re.sub(r"\W+", "-", known["card"].lower()).strip("-")
    default = Path("docs/benchmarks") / f"gpu_{card}_{known['date']}.md"
    size = f" --device {where.device}{' --small' * where.small}" if where.device == "cpu" else ""
    (options.output or default).write_text(page(known, outcomes, size), encoding="utf-8")
    if any(each.failed for each in outcomes):
        sys.exit(1)


if __name__ == "__main__":
    main()
