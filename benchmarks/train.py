"""Compare training, in clips per second, with other ways to train and with the limit.

    python -m benchmarks.train --folder DIR                    # CPU; 1 GB of disk
    python -m benchmarks.train --folder DIR --device cuda --work 1280000    # 18 GB of disk
    python -m benchmarks.train --folder DIR --work 1 --repeats 1    # a trial

The second of two tasks is trained with the guided method and head (width 512) on 250, 50 and 10
tokens per clip and modality. Columns:

- AV-CIL's way: HDF5 with one float32 data set per clip, DataLoaders with 4 workers in all that read
  clips one by one, the teacher run at each step, eager float32;
- plain: an eager float32 loop over tokens on the device, the teacher run at each step;
- ours, with its settings: includes loading the task and running the teacher once, divided by 20
  epochs;
- limit: the speed of the fastest matrix product, measured here, divided by the operations of the
  matrix products in a training step of the head (every token through every layer, forward and
  backward, without the teacher).

Ways take turns and figures are medians. Prints one JSON line with versions and machine, then a
table. Results: docs/benchmarks/train_2cores_2026-11.md.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import shutil
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from avcil.incremental.heads.base import Batch
from avcil.incremental.train.precision import compute_deterministically
from avcil.runtime.device import multiplies_bf16
from benchmarks.train_rivals import (
    AUDIO,
    BATCH,
    CLASSES,
    VISUAL,
    AVCILWay,
    Ours,
    Plain,
    Subject,
    make,
    wait,
)

TOKENS = (250, 50, 10)
REFERENCE = "AV-CIL's way"
FORMS: dict[str, dict[str, dict[str, object]]] = {
    "cpu": {
        "ours": {},
        "ours, fp32": {"precision": "fp32"},
        "ours, compiled": {"compiled": True},
    },
    "cuda": {
        "ours": {},
        "ours, fp32": {"precision": "fp32"},
        "ours, graph": {"graphed": True},
    },
}
"""Settings of our trainer by the name of their column."""


def measure(
    subject: Subject, forms: dict[str, dict[str, object]], repeats: int
) -> dict[str, float]:
    """Return clips per second by way, measured over whole epochs."""
    makers: dict[str, Callable[[], Plain | Ours]] = {
        REFERENCE: lambda: AVCILWay(subject),
        "plain": lambda: Plain(subject),
    }
    ways = {name: maker() for name, maker in makers.items()}
    ways |= {name: Ours(subject, **settings) for name, settings in forms.items()}
    clips = sum(map(len, subject.rows(subject.config())))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            # The others may use nondeterministic kernels; we do not.
            torch.use_deterministic_algorithms(isinstance(way, Ours))
            each = way.epoch()
            if turn:  # the first epoch compiles and fills memory pools
                seconds[name].append(each)
    return {name: clips / statistics.median(each) for name, each in seconds.items()}


def round_up(clips: int) -> int:
    """Round up to whole batches and equally many clips per class."""
    unit = math.lcm(BATCH, CLASSES // 2)
    return max(1, -(-clips // unit)) * unit


def operations(subject: Subject) -> float:
    """Return the operations per clip of the matrix products in a training step of the head."""
    config = subject.config()
    network = subject.networks(config)[0].cpu()
    network.autocast = None
    size, tokens = 2, subject.tokens
    batch = Batch(
        torch.zeros(size, tokens, VISUAL),
        torch.zeros(size, tokens, AUDIO),
        None,
        None,
        torch.zeros(size, dtype=torch.int64),
        size,
    )
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        outputs = network(batch, tokens_from=0)  # every token through every layer
        (outputs.logits.sum() + outputs.encoded.tokens.sum()).backward()
    return counter.get_total_flops() / size


def ceiling(device: torch.device, kind: torch.dtype) -> float:
    """Return the operations per second of the fastest of some large matrix products."""
    best = 0.0
    for size in (4096, 8192, 12288) if device.type == "cuda" else (1024, 2048):
        left, right = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
        for _ in range(20):
            start = time.perf_counter()
            left @ right
            wait(device)
            best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def print_table(rates: dict[int, dict[str, float]], device: torch.device) -> None:
    """Print clips a second as Markdown, ours with ratios to AV-CIL's way, plain and the limit."""
    columns = list(next(iter(rates.values())))
    print("| tokens | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for tokens, row in rates.items():
        cells = []
        for name, rate in row.items():
            limit = row["limit, bf16" if is_coarse(name, device) else "limit, fp32"]
            ratios = f"{rate / row[REFERENCE]:.1f} x, {rate / row['plain']:.2f} x"
            told = f" ({ratios}, {rate / limit:.0%})" if name.startswith("ours") else ""
            cells.append(f"{rate:,.0f}{told}" if rate >= 100 else f"{rate:.1f}{told}")
        print(f"| {tokens} | " + " | ".join(cells) + " |")


def is_coarse(name: str, device: torch.device) -> bool:
    """Return whether this is ours in bfloat16, the default of devices that support it."""
    return name.startswith("ours") and "fp32" not in name and multiplies_bf16(device)


def facts(device: torch.device, options: argparse.Namespace) -> dict[str, object]:
    """Return what the figures depend on."""
    names = ("avcil", "torch", "numpy", "h5py")
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "bf16": multiplies_bf16(device),
        "batch": f"{BATCH} new clips and {BATCH} exemplars",
        "work": options.work,
        "repeats": options.repeats,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def main() -> None:
    """Make the data, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="emptied, then filled")
    parser.add_argument("--device", default="cpu", help="`cpu` or `cuda`")
    parser.add_argument(
        "--work",
        type=int,
        default=40_000,
        help="tokens of an epoch's new clips, at least 160 clips",
    )
    parser.add_argument(
        "--tokens", type=int, nargs="+", default=TOKENS, help="tokens per clip and modality"
    )
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    device = torch.device(options.device)
    compute_deterministically()
    shutil.rmtree(options.folder, ignore_errors=True)
    limits = {"limit, fp32": 0.0, "limit, bf16": 0.0}
    rates: dict[int, dict[str, float]] = {}
    operations_of: dict[int, float] = {}
    for tokens in options.tokens:
        folder = options.folder / str(tokens)
        make(folder, tokens, round_up(options.work // tokens))
        subject = Subject(folder, tokens, device)
        rates[tokens] = measure(subject, FORMS[device.type], options.repeats)
        operations_of[tokens] = operations(subject)
        shutil.rmtree(folder)
        for (name, best), kind in zip(limits.items(), (torch.float32, torch.bfloat16), strict=True):
            limits[name] = max(best, ceiling(device, kind))  # other load may slow some
    for tokens, each in operations_of.items():
        rates[tokens] |= {name: rate / each for name, rate in limits.items()}
    rounded = {
        tokens: {name: round(rate, 1) for name, rate in row.items()}
        for tokens, row in rates.items()
    }
    told = {name: round(rate / 1e9) for name, rate in limits.items()}
    print(json.dumps(facts(device, options) | {"ceiling_gflops": told, "clips_s": rounded}))
    print_table(rates, device)


if __name__ == "__main__":
    main()
