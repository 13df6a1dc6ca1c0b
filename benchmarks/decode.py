"""Measure CPU time and memory of decoding a clip, by resolution, now and in another checkout.

    python -m benchmarks.extract --decode
    git worktree add ../before v0.1.0
    python -m benchmarks.extract --decode --before ../before

One process decodes one clip (H.264 and AAC at 48 kHz, 25 frames/s; 10 s, and 3 s at 2160p, where
0.1.0 needs gigabytes), on one thread:

- now: `avcil.extract.decode.media.decode`, frames resized to 336 x 336 as they are decoded;
- before: the function of 0.1.0, which returns frames at full size;
- before + resize: the same, with each frame then resized on the CPU in float;
- resize alone: resizing as many frames as the clip has, as is done now.

CPU time is the least of several runs, for 10 s of video. Memory is the largest of them: the peak
beyond what the process uses once Python, FFmpeg and PyTorch are loaded and a clip was decoded.
The cores are those that decode as fast as one H100 encodes (see docs/extraction.md).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

SECONDS = {360: 10, 720: 10, 1080: 10, 2160: 3}
FPS, SIZE = 25, 336
TOWER_FRAMES_PER_S = 1110
"""Of PE-L/14@336 on one H100; see docs/extraction.md."""

MEASURE = """
import importlib.util, json, re, sys, time
from pathlib import Path
import numpy as np, torch, torchaudio.functional
from torch.nn.functional import interpolate

torch.set_num_threads(1)
way, path, small, seconds, size = sys.argv[1:4] + [int(each) for each in sys.argv[4:]]
settings = dict(seconds=seconds, visual_rate_hz=25, sample_rate=48_000)
if way.startswith("before"):
    from avcil.extract.media import Sampling, decode
else:
    from avcil.extract.decode.images import resize
    from avcil.extract.decode.media import Sampling, decode
    from avcil.extract.encoders.base import Resizing
    settings["resizing"] = Resizing(size, size, "bicubic")

def in_float(frame):
    planes = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
    resized = interpolate(planes, (size, size), mode="bicubic", antialias=True)
    return resized.round_().clamp_(0, 255).to(torch.uint8)

def run(path):
    if way == "resize alone":
        for _ in range(25 * seconds):
            resize(image, settings["resizing"], target)
        return
    media = decode(Path(path), Sampling(**settings))
    if way.endswith("resize"):
        for frame in media.frames:
            in_float(frame)

def status(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1e6

if way == "resize alone":
    height = int(Path(path).stem)
    image = np.random.default_rng(0).integers(0, 255, (height, height * 16 // 9, 3), np.uint8)
    target = np.empty((size, size, 3), np.uint8)
else:
    run(small)
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
memory, start = status("VmRSS"), time.process_time()
run(path)
cpu_s = time.process_time() - start
print(json.dumps([cpu_s, max(0.0, status("VmHWM") - memory), memory]))
"""


def write_clip(path: Path, height: int, seconds: int) -> None:
    """Write a clip of drifting fields under a little noise, at the bit rate of usual videos."""
    rng, width = np.random.default_rng(0), height * 16 // 9
    fields = rng.integers(30, 220, (18, 64, 3), dtype=np.uint8)
    large = np.repeat(np.repeat(fields, height // 18 + 1, 0)[:height], width // 32 + 1, 1)
    grain = rng.integers(-4, 5, (height, 2 * width, 1))
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast"})
        video.height, video.width, video.pix_fmt = height, width, "yuv420p"
        audio: Any = container.add_stream("aac", rate=48_000, layout="mono")
        for number in range(seconds * FPS):
            at = number * 3 % width
            image = large[:, at : at + width] + grain[:, (37 * number) % width :][:, :width]
            frame = av.VideoFrame.from_ndarray(image.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode())
        sound = 0.1 * rng.standard_normal((1, 48_000 * seconds)).astype(np.float32)
        block = av.AudioFrame.from_ndarray(sound, format="fltp", layout="mono")
        block.sample_rate, block.pts, block.time_base = 48_000, 0, Fraction(1, 48_000)
        container.mux(audio.encode(block))
        container.mux(audio.encode())


def cost(way: str, checkout: Path, path: Path, small: Path, seconds: int) -> list[float]:
    """Return CPU seconds, GB beyond the start, and GB at the start."""
    arguments = [way, str(path), str(small), str(seconds), str(SIZE)]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    output = subprocess.run(
        [sys.executable, "-c", MEASURE, *arguments],
        cwd=path.parent, env=environment, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return list(json.loads(output.splitlines()[-1]))


def show_decoding(repeats: int, before: Path | None) -> None:
    """Print a table of the costs by resolution; `before` is a checkout of 0.1.0."""
    here = Path(__file__).parents[1]
    ways = {"now": here, "resize alone": here}
    if before is not None:
        ways = {"before": before.resolve(), "before + resize": before.resolve(), **ways}
    print("| | way | CPU s per 10 s | GB beyond the start | GB at the start | cores for one H100 |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "90.mp4"
        write_clip(small, 90, 1)
        for height, seconds in SECONDS.items():
            path = Path(folder) / f"{height}.mp4"
            write_clip(path, height, seconds)
            for way, checkout in ways.items():
                costs = [cost(way, checkout, path, small, seconds) for _ in range(repeats)]
                cpu_s = min(each[0] for each in costs) * 10 / seconds
                more, start = (max(each[part] for each in costs) for part in (1, 2))
                cores = cpu_s * TOWER_FRAMES_PER_S / (10 * FPS)
                print(
                    f"| {height}p | {way} | {cpu_s:.2f} | {more:.2f} | {start:.2f} | {cores:.1f} |",
                    flush=True,
                )
