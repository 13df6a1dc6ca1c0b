"""Ten built-in classes of short clips, rendered as real mp4 files, for trying everything out.

The classes share five looks and five sounds: each look and each sound belongs to two classes, and
each pair of them to one class only. Pictures or sounds alone leave two classes to choose from; both
together identify the class:

    fire engine    vehicle + siren      motorboat     boat + engine
    truck          vehicle + engine     sailing boat  boat + rush
    waterfall      water + rush         songbird      bird + chirps
    rain           water + knocks       woodpecker    bird + knocks
    alarm clock    dial + chirps        warning light dial + siren

Shapes: F frames of H x W pixels; S samples.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avcil.cache.schema import SPLITS, Split
from avcil.extract.demo import looks, sounds
from avcil.extract.demo.looks import Actor, Look
from avcil.extract.demo.mp4 import write_mp4
from avcil.extract.demo.sounds import SAMPLE_RATE, Sound
from avcil.runtime.machine import cores
from avcil.runtime.pool import main_module_hidden
from avcil.runtime.progress import track

VERSION = 3
"""Increased whenever the same seed gives other clips, so that old clips are rendered again."""
SECONDS = 2
FRAME_RATE_HZ = 8
COUNTS: dict[Split, int] = {"train": 24, "val": 6, "test": 10}

# In this order, classes that share a look or a sound are mostly in different tasks.
CLASSES: dict[str, tuple[Look, Sound]] = {
    "fire engine": (looks.vehicle, sounds.siren),
    "truck": (looks.vehicle, sounds.engine),
    "motorboat": (looks.boat, sounds.engine),
    "warning light": (looks.dial, sounds.siren),
    "sailing boat": (looks.boat, sounds.rush),
    "alarm clock": (looks.dial, sounds.chirps),
    "waterfall": (looks.water, sounds.rush),
    "songbird": (looks.bird, sounds.chirps),
    "rain": (looks.water, sounds.knocks),
    "woodpecker": (looks.bird, sounds.knocks),
}
LOOKS: tuple[Look, ...] = tuple(dict.fromkeys(look for look, _ in CLASSES.values()))
SOUNDS: tuple[Sound, ...] = tuple(dict.fromkeys(sound for _, sound in CLASSES.values()))


@dataclass(frozen=True, slots=True)
class DemoClip:
    """One clip of the demo and its path in the folder of videos."""

    split: Split
    label: int
    number: int

    @property
    def name(self) -> str:
        """The name of its class."""
        return list(CLASSES)[self.label]

    @property
    def id(self) -> str:
        """A unique name."""
        return f"{self.name.replace(' ', '-')}-{self.split}-{self.number:02d}"

    @property
    def path(self) -> Path:
        """Its file, relative to the folder of videos."""
        return Path(self.split, self.name, f"{self.id}.mp4")


def demo_clips() -> list[DemoClip]:
    """List the clips of the demo, rendered or not."""
    return [
        DemoClip(split, label, number)
        for split in SPLITS
        for label in range(len(CLASSES))
        for number in range(COUNTS[split])
    ]


def render_demo(directory: Path, *, seed: int = 0, workers: int | None = None) -> None:
    """Render the missing clips, in several processes.

    Clips of another seed or version are rendered again.

    Args:
        directory: the folder of videos.
        seed: determines every pixel and sample.
        workers: number of processes; None starts one per core.
    """
    _settle(directory, {"version": VERSION, "seed": seed})
    missing = [clip for clip in demo_clips() if not (directory / clip.path).exists()]
    if not missing:
        return
    jobs = [(directory, seed, clip) for clip in missing]
    # Not "fork": the caller may run threads, whose locks a forked child would inherit held.
    context = multiprocessing.get_context("spawn")
    with main_module_hidden():
        processes = context.Pool(workers or cores())
    with processes as pool, track("rendering demo clips", len(jobs), "clips") as bar:
        for _ in pool.imap_unordered(_render, jobs, chunksize=8):
            bar.advance()


def draw_clip(clip: DemoClip, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Draw one clip: frames [F, H, W, 3] and waveform [S]."""
    rng = np.random.default_rng([seed, SPLITS.index(clip.split), clip.label, clip.number])
    look, sound = CLASSES[clip.name]
    return np.stack(list(_frames(look, rng))), _waveform(sound, rng)


def _settle(directory: Path, identity: dict[str, int]) -> None:
    """Mark the folder with this seed and version, and delete the clips of any other."""
    marker = directory / "demo.json"
    if marker.exists() and json.loads(marker.read_text()) == identity:
        return
    marker.unlink(missing_ok=True)  # first, so that a kill leaves no mark beside other clips
    for clip in demo_clips():
        (directory / clip.path).unlink(missing_ok=True)
    directory.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps(identity))


def _render(job: tuple[Path, int, DemoClip]) -> None:
    directory, seed, clip = job
    frames, waveform = draw_clip(clip, seed)
    write_mp4(directory / clip.path, frames, FRAME_RATE_HZ, waveform, SAMPLE_RATE)


def _frames(look: Look, rng: np.random.Generator) -> Iterator[NDArray[np.uint8]]:
    """Draw the frames: background, a small distractor, the object, noise."""
    scene, actor = looks.background(rng), Actor.draw(rng)
    spot, size, colour = rng.uniform(-0.9, 0.9, 2), rng.uniform(0.05, 0.12), rng.uniform(0, 1, 3)
    for time_s in np.arange(SECONDS * FRAME_RATE_HZ) / FRAME_RATE_HZ:
        image = scene.copy()
        look(image, actor, float(time_s))
        looks.speck(image, spot[0] + 0.3 * time_s, spot[1], size, colour)
        image += rng.normal(0, 0.03, image.shape)
        yield np.clip(255 * image, 0, 255).astype(np.uint8)


def _waveform(sound: Sound, rng: np.random.Generator) -> NDArray[np.float32]:
    """Mix the sound with a quieter distractor and noise, at a random loudness."""
    time_s = np.arange(SECONDS * SAMPLE_RATE) / SAMPLE_RATE
    others = [other for other in SOUNDS if other is not sound]
    distractor = others[int(rng.integers(len(others)))]
    mix = _level(sound(time_s, rng))
    mix = mix + rng.uniform(0, 0.12) * _level(distractor(time_s, rng))
    mix = mix + rng.uniform(0.02, 0.06) * rng.standard_normal(len(time_s))
    return np.asarray(0.12 * rng.uniform(0.7, 1.3) * mix, dtype=np.float32).clip(-1, 1)


def _level(wave: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(wave / np.sqrt(np.mean(wave**2)))
