"""Compare the speed of extraction with the vision tower alone and with a plain loop.

    python -m benchmarks.extract                                   # tiny encoder, CPU, demo-sized
    python -m benchmarks.extract --device cuda --encoder large     # PE-L/14@336, random weights
    python -m benchmarks.extract --memory 200 2000                 # peak memory by number of clips
    python -m benchmarks.extract --decode                          # see benchmarks/decode.py

One run alternates between:
- ceiling: the vision tower on resized images in device memory, with the batches, the precision and
  (on a GPU) the compilation of the pipeline, and with the threads that decoding leaves;
- towers: both towers on decoded clips in memory, which adds resizing, sound and copying;
- pipeline: `avcil.extract.pipeline.extract` from files to a cache, timed from the first finished
  clip, without starting processes and compiling;
- plain loop: for each clip, decode it completely, resize frame by frame, and run the towers without
  compilation and the codec without cuDNN; nothing is written. Same precision as the pipeline.

The clips are a few files of noise over moving bars, listed repeatedly, so they come from the page
cache. The ceiling is also given as a fraction of the device's matmul speed. Prints one JSON line
with versions and machine, then a table. Not measured on a GPU yet.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from avcil.api.extraction import default_workers
from avcil.extract.datasets import Clip, Dataset
from avcil.extract.decode.media import Sampling, decode
from avcil.extract.demo.mp4 import write_mp4
from avcil.extract.encode import threads_beside
from avcil.extract.encoders import tiny
from avcil.extract.encoders.towers import AudioTower, TowerEncoder, Towers, VisionTower, reflected
from avcil.extract.pipeline import extract
from avcil.extract.plan import Settings
from benchmarks.decode import show_decoding

FILES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The shape of the clips, and their encoder."""

    seconds: float
    rate_hz: int
    height: int
    width: int
    clips: int
    load: Callable[[torch.device], TowerEncoder]


def load_tiny(device: torch.device) -> TowerEncoder:
    """Load the built-in encoder."""
    encoder = tiny.load(device)
    assert isinstance(encoder, TowerEncoder)
    return encoder


def load_large(device: torch.device) -> TowerEncoder:
    """Build towers of the size of SAM-Audio's, with random weights."""
    import timm
    from transformers import DacConfig
    from transformers.models.dac.modeling_dac import DacEncoder

    torch.manual_seed(0)
    vision = VisionTower(timm.create_model("vit_pe_core_large_patch14_336"), 336, 1024)
    dac = DacConfig(encoder_hidden_size=64, downsampling_ratios=[2, 8, 10, 12])
    audio = AudioTower(DacEncoder(dac), torch.nn.Conv1d(dac.hidden_size, 128, 1), 1920)
    towers = Towers(name="random-large", sample_rate=48_000, random_weights=True)
    return TowerEncoder(towers, vision, audio, device)


SHAPES = {
    "tiny": Shape(seconds=2, rate_hz=8, height=64, width=64, clips=400, load=load_tiny),
    "large": Shape(seconds=10, rate_hz=25, height=360, width=640, clips=256, load=load_large),
}


def write_files(folder: Path, shape: Shape, sample_rate: int) -> list[Path]:
    """Write files of moving bars under noise, which are neither static nor incompressible."""
    chance = np.random.default_rng(0)
    paths = [folder / f"{number}.mp4" for number in range(FILES)]
    for number, path in enumerate(paths):
        times = np.arange(round(shape.seconds * shape.rate_hz))[:, None, None, None]
        bars = 90 + 60 * np.sin(
            np.arange(shape.width)[None, None, :, None] / 9 + times / 3 + number
        )
        noise = chance.integers(-20, 20, (len(times), shape.height, shape.width, 3))
        sound = 0.1 * chance.standard_normal(round(shape.seconds * sample_rate))
        frames = (bars + noise).clip(0, 255).astype(np.uint8)
        write_mp4(path, frames, shape.rate_hz, sound.astype(np.float32), sample_rate)
    return paths


def repeated(paths: Sequence[Path], clips: int) -> Dataset:
    """Return a data set that lists the files repeatedly."""
    listed = [Clip(f"{n:06d}", paths[n % len(paths)], "noise", "train") for n in range(clips)]
    return Dataset(name="noise", classes=("noise",), clips=tuple(listed))


class Bench:
    """The ways to encode, on the same files and device."""

    def __init__(self, shape: Shape, device: torch.device, workers: int, folder: Path) -> None:
        self.shape, self.device, self.workers, self.folder = shape, device, workers, folder
        self.encoder, self.plain = shape.load(device), shape.load(device)
        self.frames = round(shape.seconds * shape.rate_hz)
        self.paths = write_files(folder, shape, self.encoder.sample_rate)
        self.pipeline(4 * workers)  # compiles the tower and casts its weights
        dtype = next(self.encoder.vision.model.parameters()).dtype
        self.plain.vision.model.to(dtype)

    def pipeline(self, clips: int) -> float:
        """Return clips/s of an extraction into a new cache."""
        dataset = repeated(self.paths, clips)
        with tempfile.TemporaryDirectory(dir=self.folder) as cache:
            path = Path(cache) / "features.zarr"
            return extract(dataset, self.encoder, path, self._settings()).clips_per_s

    @torch.inference_mode()
    def ceiling(self, clips: int) -> float:
        """Return clips/s of the vision tower alone, on a batch in device memory."""
        vision = self.encoder.vision
        batch = self.encoder.running.batch_frames if self.device.type == "cuda" else self.frames
        images = torch.rand(batch, 3, vision.size, vision.size, device=self.device) * 2 - 1
        times = max(3, clips * self.frames // batch)
        with threads_beside(self.workers):
            return self.rate(lambda: vision.vectors(images), times) * batch / self.frames

    def towers(self, clips: int) -> float:
        """Return clips/s of the encoder on decoded clips in memory."""
        decoded = [decode(path, self._sampling()) for path in self.paths]
        with threads_beside(self.workers):
            times = max(1, clips // FILES)
            return self.rate(lambda: self.encoder.encode(decoded), times) * FILES

    @torch.inference_mode()
    def plain_loop(self, clips: int) -> float:
        """Return clips/s of a loop over single clips."""
        paths = (path for path in self.paths * math.ceil((clips + 1) / FILES))
        return self.rate(lambda: self._one(next(paths)), clips)

    def _one(self, path: Path) -> None:
        clip, towers = decode(path, self._sampling()), self.plain
        frames = [torch.from_numpy(frame)[None].to(self.device) for frame in clip.frames]
        visual_tokens = towers.vision.vectors(
            torch.cat([towers.vision.images(each) for each in frames])
        )
        sound = torch.from_numpy(clip.waveform)[None].to(self.device)
        with torch.backends.cudnn.flags(enabled=False):
            padded = reflected(sound, towers.audio.hop)[:, None]
            sound_tokens = towers.audio.projection(towers.audio.encoder(padded))
        for tokens in (visual_tokens, sound_tokens):
            tokens.half().cpu().numpy()

    def _sampling(self) -> Sampling:
        return self._settings().sampling(self.encoder)

    def _settings(self) -> Settings:
        shape = self.shape
        return Settings(seconds=shape.seconds, visual_rate_hz=shape.rate_hz, workers=self.workers)

    def matmul_share(self, clips_per_s: float) -> tuple[float, float]:
        """Return TFLOP/s of a large matmul, and the fraction of it that these clips/s use."""
        from torch.utils.flop_counter import FlopCounterMode

        dtype = next(self.plain.vision.model.parameters()).dtype
        size = 8192 if self.device.type == "cuda" else 1024
        matrix = torch.randn(size, size, device=self.device, dtype=dtype)
        with threads_beside(self.workers):
            ceiling = self.rate(lambda: matrix @ matrix, 50) * 2 * size**3
        vision = self.plain.vision
        image = torch.zeros(1, 3, vision.size, vision.size, device=self.device)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            vision.vectors(image)
        return ceiling / 1e12, clips_per_s * self.frames * counter.get_total_flops() / ceiling

    def rate(self, work: Callable[[], object], times: int) -> float:
        """Return calls per second, after one call to warm up."""
        work()
        self._wait()
        start = time.perf_counter()
        for _ in range(times):
            work()
        self._wait()
        return times / (time.perf_counter() - start)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def compare(bench: Bench, clips: int, repeats: int) -> dict[str, float]:
    """Return the median clips/s of each way; the ways take turns."""
    ways = {
        "ceiling": bench.ceiling,
        "towers": bench.towers,
        "pipeline": bench.pipeline,
        "plain loop": bench.plain_loop,
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            rates[name].append(way(clips))
    return {name: statistics.median(each) for name, each in rates.items()}


def peak_mb(clips: int) -> float:
    """Extract clips and return the peak memory of this process, in MB."""
    with tempfile.TemporaryDirectory() as folder:
        Bench(SHAPES["tiny"], torch.device("cpu"), 2, Path(folder)).pipeline(clips)
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e3


def show_memory(counts: Sequence[int]) -> None:
    """Print the peak memory of the main process by number of clips."""
    print("| clips | peak of the main process, MB |\n|---|---|")
    for clips in counts:
        # A new process per figure, because a peak never decreases.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            print(f"| {clips} | {process.submit(peak_mb, clips).result():.0f} |", flush=True)


def machine(arguments: argparse.Namespace) -> str:
    """Return the options, versions and machine as one line of JSON."""
    cuda = torch.cuda.get_device_name() if arguments.device == "cuda" else None
    return json.dumps(
        {name: value for name, value in vars(arguments).items() if name != "before"}
        | {"python": platform.python_version(), "torch": torch.__version__, "gpu": cuda}
        | {"cores": os.cpu_count(), "load": os.getloadavg()[0]}
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--encoder", choices=list(SHAPES), default="tiny")
    parser.add_argument("--clips", type=int, help="clips per run; default by encoder")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, help="decoding processes")
    parser.add_argument("--decode", action="store_true", help="only measure decoding")
    parser.add_argument("--before", type=Path, help="checkout of 0.1.0 to compare decoding with")
    parser.add_argument(
        "--memory", type=int, nargs="+", metavar="CLIPS", help="only measure memory"
    )
    arguments = parser.parse_args()
    print(machine(arguments), flush=True)
    if arguments.decode:
        show_decoding(arguments.repeats, arguments.before)
        return
    if arguments.memory:
        show_memory(arguments.memory)
        return
    shape, device = SHAPES[arguments.encoder], torch.device(arguments.device)
    workers = arguments.workers or default_workers(device)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(shape, device, workers, Path(folder))
        rates = compare(bench, arguments.clips or shape.clips, arguments.repeats)
        ceiling, share = bench.matmul_share(rates["ceiling"])
    print("| | clips/s | of the ceiling | of the plain loop |\n|---|---|---|---|")
    for name, rate in rates.items():
        of_both = f"{rate / rates['ceiling']:.2f} | {rate / rates['plain loop']:.2f}"
        print(f"| {name} | {rate:.2f} | {of_both} |")
    print(f"matmul: {ceiling:.1f} TFLOP/s; the ceiling reaches {share:.0%} of it")


if __name__ == "__main__":
    main()
