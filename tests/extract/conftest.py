"""Clips that many tests of extraction share; they are rendered once."""

import pytest

from avcil.extract.datasets import Clip, Dataset
from avcil.extract.demo import CLASSES, DemoClip, draw_clip
from avcil.extract.demo.mp4 import write_mp4


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """24 training clips of the demo's first two classes in turn; do not change the files."""
    folder, clips = tmp_path_factory.mktemp("videos"), []
    for number in range(24):
        clip = DemoClip("train", number % 2, number)
        frames, waveform = draw_clip(clip, seed=0)
        write_mp4(folder / clip.path, frames, 8, waveform, 16_000)
        clips.append(Clip(clip.id, folder / clip.path, clip.name, clip.split))
    return Dataset(name="few", classes=tuple(CLASSES)[:2], clips=tuple(clips))
