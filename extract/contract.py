"""Checks of encoders and data sets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avcil.cache.schema import SPLITS, Tokens
from avcil.cache.sources import shared_videos
from avcil.checks import Broken, Check
from avcil.extract.datasets import describe
from avcil.extract.datasets.base import Clip, Dataset, Where, refuse_shared_files
from avcil.extract.encoders import load_encoder
from avcil.extract.encoders.base import Encoder, Media

SECONDS, RATE_HZ = 2.0, 8.0
SIZE = 64
"""Pixels of a side of a frame, where the encoder takes any size."""
ROUNDING = 1e-4


def make_media(encoder: Encoder, seed: int, seconds: float = SECONDS) -> Media:
    """Return a clip of noise as the encoder takes it."""
    rng = np.random.default_rng(seed)
    size = encoder.resizing
    shape = (size.height, size.width) if size else (SIZE, SIZE)
    count = round(seconds * RATE_HZ)
    frames = rng.integers(0, 256, (count, *shape, 3), dtype=np.uint8)
    waveform = rng.normal(0, 0.1, round(seconds * encoder.sample_rate)).astype(np.float32)
    return Media(frames, np.arange(count), waveform)


@dataclass(slots=True)
class EncoderChecks:
    """An encoder, and what must hold for it."""

    name: str
    encoder: Encoder

    def describes_its_tokens(self) -> None:
        """Check shapes and values of the tokens of a clip."""
        encoding = self.encoder.encoding(seconds=SECONDS, visual_rate_hz=RATE_HZ)
        [tokens] = self.encoder.encode([make_media(self.encoder, 0)])
        for modality, found in (("visual", tokens.visual), ("audio", tokens.audio)):
            count = getattr(encoding, f"{modality}_tokens")
            width = getattr(encoding, f"{modality}_width")
            if found.shape != (count, width):
                raise Broken(
                    f"`encoding` describes {modality} tokens of the shape [{count}, {width}] for "
                    f"{SECONDS:g} s at {RATE_HZ:g} Hz, and `encode` gives {list(found.shape)}"
                )
            if not np.isfinite(found).all():
                raise Broken(f"{modality} tokens are infinite or NaN")
            if modality in encoding.unit_norm:
                norms = np.linalg.norm(np.asarray(found, np.float64), axis=1)
                if not np.allclose(norms, 1, atol=1e-3):
                    raise Broken(f"`unit_norm` promises {modality} tokens of norm 1")

    def repeats_itself(self) -> None:
        """Check that a clip has the same tokens twice, from this encoder and from a new one."""
        import torch

        clip = make_media(self.encoder, 0)
        kept = clip.frames.copy(), clip.waveform.copy()
        [first] = self.encoder.encode([clip])
        if not (np.array_equal(clip.frames, kept[0]) and np.array_equal(clip.waveform, kept[1])):
            raise Broken("`encode` changes the frames or the waveform that it is given")
        [second] = self.encoder.encode([clip])
        if not equal(first, second, 0):
            raise Broken("the same clip has other tokens the second time: is dropout off?")
        new = load_encoder(self.name, torch.device("cpu"))
        if fingerprint(new) == fingerprint(self.encoder):
            [third] = new.encode([clip])
            if not equal(first, third, 0):
                raise Broken(
                    "a second encoder with the same fingerprint gives other tokens: are its "
                    "weights drawn without a seed?"
                )

    def clips_do_not_see_each_other(self) -> None:
        """Check that a clip has the same tokens alone and among others, in their order."""
        clips = [make_media(self.encoder, seed, 2 - seed % 2) for seed in range(3)]
        together = self.encoder.encode(clips)
        if len(together) != len(clips):
            raise Broken(f"`encode` gives {len(together)} results for {len(clips)} clips")
        for number, (clip, beside) in enumerate(zip(clips, together, strict=True)):
            [alone] = self.encoder.encode([clip])
            if not equal(alone, beside, ROUNDING):
                raise Broken(
                    f"clip {number} of {len(clips)} has other tokens than alone: they may not "
                    "depend on the clips beside it, and must be in the order of the clips"
                )

    def fingerprint_says_what_tokens_depend_on(self) -> None:
        """Check that the fingerprint is stable and depends on length and rate."""
        if fingerprint(self.encoder) != fingerprint(self.encoder):
            raise Broken("`encoding` gives another fingerprint every time")
        encoding = self.encoder.encoding(seconds=SECONDS, visual_rate_hz=RATE_HZ)
        if not encoding.fingerprint:
            raise Broken("the fingerprint is empty")
        if (encoding.seconds, encoding.visual_rate_hz) != (SECONDS, RATE_HZ):
            raise Broken(
                "`encoding` must return the `seconds` and `visual_rate_hz` that it is given"
            )


def equal(one: Tokens, other: Tokens, tolerance: float) -> bool:
    """Return whether two clips have the same tokens, up to a share of the largest."""
    pairs = ((one.visual, other.visual), (one.audio, other.audio))
    for a, b in pairs:
        if a.shape != b.shape:
            return False
        most = float(np.abs(a).max(initial=1e-12))
        if not np.allclose(a, b, rtol=0, atol=tolerance * most):
            return False
    return True


def fingerprint(encoder: Encoder) -> str:
    """Return the fingerprint of the tokens of the clips that are checked."""
    return encoder.encoding(seconds=SECONDS, visual_rate_hz=RATE_HZ).fingerprint


def encoder_checks(name: str) -> Iterator[Check]:
    """Yield the checks of an encoder, which is built on the CPU.

    Raises:
        EncoderError: it cannot be built.
    """
    import torch

    checks = EncoderChecks(name, load_encoder(name, torch.device("cpu")))
    yield Check("tokens have the shapes that it describes", checks.describes_its_tokens)
    yield Check("the same clip has the same tokens", checks.repeats_itself)
    yield Check("clips do not see each other", checks.clips_do_not_see_each_other)
    yield Check("the encoding is stable", checks.fingerprint_says_what_tokens_depend_on)


@dataclass(slots=True)
class DatasetChecks:
    """A data set, and what must hold for it."""

    name: str
    where: Where
    dataset: Dataset

    def has_every_split(self) -> None:
        """Check that every class has clips to train, validate and test."""
        counts = Counter((clip.label, clip.split) for clip in self.dataset.clips)
        for split in SPLITS:
            without = [name for name in self.dataset.classes if not counts[name, split]]
            if without:
                more = " (train with --select last)" if split == "val" else ""
                raise Broken(
                    f"{len(without)} of {len(self.dataset.classes)} classes have no {split} clip: "
                    f"{', '.join(without[:5])}{' ...' if len(without) > 5 else ''}{more}"
                )

    def names_can_be_used(self) -> None:
        """Check the names of the data set, its classes and its clips."""
        self.dataset.manifest()

    def files_are_there(self) -> None:
        """Check that every clip is a file, and no file is two clips."""
        missing = [clip for clip in self.dataset.clips if not clip.path.is_file()]
        if missing:
            raise Broken(
                f"{len(missing)} of {len(self.dataset.clips)} clips have no file, such as "
                f"{missing[0].path}"
            )
        files = [Path(os.path.realpath(clip.path)) for clip in self.dataset.clips]
        refuse_shared_files(self.dataset.name, self.dataset.clips, files)

    def nothing_leaks(self) -> None:
        """Check that no test clip shares its source video with a training clip."""
        if shared := shared_videos(self.dataset.manifest()):
            raise Broken(f"{shared}; the accuracy on these clips is too high")

    def is_listed_the_same_again(self) -> None:
        """Check that another process lists the same clips in the same order."""
        here = listing(self.dataset)
        where = {name: str(value) for name, value in asdict(self.where).items() if value}
        for hash_seed in ("1", "2"):
            done = subprocess.run(
                [sys.executable, "-m", "avcil.extract.contract", self.name],
                input=json.dumps(where | {"split_names": dict(self.where.split_names)}),
                env={**os.environ, "PYTHONHASHSEED": hash_seed},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode or json.loads(done.stdout.splitlines()[-1]) != here:
                raise Broken(
                    "another process lists other clips, or in another order: sort what comes from "
                    "a set or a folder, and seed what is drawn"
                )


def listing(dataset: Dataset) -> list[Any]:
    """Return what the rows of a cache depend on."""
    clips = [_row(clip) for clip in dataset.clips]
    return [dataset.name, list(dataset.classes), clips]


def _row(clip: Clip) -> list[str]:
    return [clip.id, str(clip.path), clip.label, clip.split]


def dataset_checks(name: str, where: Where) -> Iterator[Check]:
    """Yield the checks of a data set.

    Raises:
        DatasetError: it cannot be listed.
    """
    checks = DatasetChecks(name, where, describe(name).load(where))
    yield Check("every class has clips of every split", checks.has_every_split)
    yield Check("names can be used", checks.names_can_be_used)
    yield Check("every clip is a file of its own", checks.files_are_there)
    yield Check("no test clip shares a video with training", checks.nothing_leaks)
    yield Check("the clips are listed the same again", checks.is_listed_the_same_again)


def main() -> None:
    """Print the clips of a data set; where they are is read from standard input."""
    given = json.load(sys.stdin)
    split_names = given.pop("split_names")
    where = Where(**{name: Path(path) for name, path in given.items()}, split_names=split_names)
    print(json.dumps(listing(describe(sys.argv[1]).load(where))))


if __name__ == "__main__":
    main()
