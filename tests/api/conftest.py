"""Clips of four classes in a folder, their cache, and small runs on it."""

from __future__ import annotations

from pathlib import Path

import pytest

import avcil
from avcil.api.runs import Runs
from avcil.extract.demo import DemoClip, draw_clip
from avcil.extract.demo.mp4 import write_mp4
from tests.api.clips import NAME
from tests.incremental.small import SMALL


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of clips, 4 to train, 2 to validate and 3 to test of each class."""
    folder = tmp_path_factory.mktemp("clips") / "my clips"
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        for label in range(4):
            for number in range(count):
                clip = DemoClip(split, label, number)  # type: ignore[arg-type]
                path = folder / split / clip.name / f"{number}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                frames, waveform = draw_clip(clip, seed=0)
                write_mp4(path, frames, 8, waveform, 16_000)
    return folder


@pytest.fixture(scope="session")
def features(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cache") / "features.zarr"
    summary = avcil.extract(
        "folder", videos=videos, encoder=NAME, cache=path, seconds=2, rate=8, workers=1
    )
    assert (summary.clips, summary.failures) == (36, {})
    return path


@pytest.fixture(scope="session")
def runs(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Runs whose classes are decided by logits, means, a discriminant, and a method's own rule."""
    folder = tmp_path_factory.mktemp("runs")
    small = {**SMALL, "tasks": 2, "learning_rate": 1e-2}
    methods = ["guided", "icarl-nme", "duet"]
    trained = avcil.train(
        features, method=methods, settings=small, runs=folder, device="cpu", parallel=1
    )
    slda = {**small, "classify": "slda"}
    other = avcil.train(features, settings=slda, runs=folder, device="cpu", parallel=1)
    return Runs([*trained, *other])
