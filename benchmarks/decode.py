"""What does decoding a clip cost, by resolution, now and in the way of 0.1.0?

    python -m benchmarks.extract --decode

CPU seconds and memory of one process for 10 s at 25 frames/s (H.264, AAC 48 kHz), at one thread:
- now: `avcil.extract.decode.media.decode`, frames resized to 336 x 336 as they are decoded;
- 0.1.0: every frame that is needed is kept as it was decoded, then converted to RGB, then copied
  into one array of full size, which was resized after decoding.

Each figure is of a process of its own: memory is its peak beyond what it needs once Python, FFmpeg
and PyTorch are loaded, which is given besides. CPU seconds are the least of several runs.
"""

from __future__ import annotations

import math
import re
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from avcil.extract.decode.media import Sampling, decode
from avcil.extract.encoders.base import Resizing

HEIGHTS = (360, 720, 1080, 2160)
SECONDS, FPS = 10, 25
SAMPLING = Sampling(
    seconds=SECONDS,
    visual_rate_hz=FPS,
    sample_rate=48_000,
    resizing=Resizing(336, 336, "bicubic"),
)
TOWER_FRAMES_PER_S = 1110
"""Of PE-L/14@336 on one H100; see docs/extraction.md."""


def write_clip(path: Path, height: int) -> None:
    """Write a clip of drifting fields under a little noise, at the bit rate of usual videos."""
    rng, width = np.random.default_rng(0), height * 16 // 9
    fields = rng.integers(30, 220, (18, 64, 3), dtype=np.uint8)
    large = np.repeat(np.repeat(fields, height // 18 + 1, 0)[:height], width // 32 + 1, 1)
    grain = rng.integers(-4, 5, (height, 2 * width, 1))
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast"})
        video.height, video.width, video.pix_fmt = height, width, "yuv420p"
        audio: Any = container.add_stream("aac", rate=48_000, layout="mono")
        for number in range(SECONDS * FPS):
            at = number * 3 % width
            image = large[:, at : at + width] + grain[:, (37 * number) % width :][:, :width]
            frame = av.VideoFrame.from_ndarray(image.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode())
        sound = 0.1 * rng.standard_normal((1, 48_000 * SECONDS)).astype(np.float32)
        block = av.AudioFrame.from_ndarray(sound, format="fltp", layout="mono")
        block.sample_rate, block.pts, block.time_base = 48_000, 0, Fraction(1, 48_000)
        container.mux(audio.encode(block))
        container.mux(audio.encode())


def now(path: Path) -> None:
    """Decode as the product does."""
    decode(path, SAMPLING)


def as_0_1_0(path: Path) -> None:
    """Keep all frames, then all images, then the array of them."""
    with av.open(str(path)) as container:
        sound = [frame.to_ndarray() for frame in container.decode(audio=0)]
        np.concatenate(sound, axis=1)
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"
        frames = list(container.decode(video=0))
    images = [frame.to_ndarray(format="rgb24") for frame in frames]
    np.stack(images)


WAYS: dict[str, Callable[[Path], None]] = {"0.1.0": as_0_1_0, "now": now}


def _status(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1e6 if found else math.nan


def cost(way: str, path: Path, small: Path) -> tuple[float, float, float]:
    """Return CPU seconds, GB beyond the start, and GB at the start."""
    torch.set_num_threads(1)
    now(small)  # loads what is loaded at the first clip
    before, start = _status("VmRSS"), time.process_time()
    WAYS[way](path)
    return time.process_time() - start, max(0.0, _status("VmHWM") - before), before


def show_decoding(repeats: int) -> None:
    """Print a table of the costs by resolution."""
    print("| | way | CPU s a clip | GB beyond the start | GB at the start | cores for one H100 |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.mp4"
        write_clip(small, 90)
        for height in HEIGHTS:
            path = Path(folder) / f"{height}.mp4"
            write_clip(path, height)
            for way in WAYS:
                costs = []
                for _ in range(repeats):
                    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                        costs.append(process.submit(cost, way, path, small).result())
                seconds = min(each[0] for each in costs)
                more, start = (max(each[part] for each in costs) for part in (1, 2))
                cores = seconds * TOWER_FRAMES_PER_S / (SECONDS * FPS)
                print(
                    f"| {height}p | {way} | {seconds:.2f} | {more:.2f} | {start:.2f} | "
                    f"{cores:.1f} |",
                    flush=True,
                )
