"""`avcil extract` with a checkpoint of the released shape: what the original implementations give.

The expected numbers were made by these, from the same checkpoint and clip, in 32 bits.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from avcil.cache.reader import FeatureStore
from avcil.cli import app

PARITY = Path(__file__).parents[2] / "data" / "parity"


@pytest.mark.slow
def test_the_command_writes_the_originals_tokens(tmp_path: Path) -> None:
    release, videos = tmp_path / "release", tmp_path / "videos" / "train" / "beep"
    subprocess.run([sys.executable, PARITY / "make_checkpoint.py", release], check=True)
    videos.mkdir(parents=True)
    shutil.copy(PARITY / "clip.mp4", videos)
    options = ["--videos", str(tmp_path / "videos"), "--encoder", str(release)]
    command = ["extract", "--dataset", "folder", *options, "--cache", str(tmp_path / "cache")]
    assert CliRunner().invoke(app, [*command, "--device", "cpu"]).exit_code == 0
    clips = FeatureStore.open(tmp_path / "cache").load(np.array([0]))
    with np.load(PARITY / "expected.npz") as file:
        expected = dict(file)
    count = len(expected["frame_index"])
    assert (clips.visual_lengths[0], clips.audio_lengths[0]) == (count, count)
    visual = clips.visual[0, :count].astype(np.float64)
    audio = clips.audio[0, :count].astype(np.float64)
    likeness = visual @ expected["visual"].T / np.linalg.norm(visual, axis=1, keepdims=True)
    assert np.diagonal(likeness).min() >= 0.99999
    distinct = expected["frame_index"][:, None] != expected["frame_index"]
    assert likeness[distinct].max() < 0.99999, "a token of another frame would be found out"
    rounding = np.abs(audio) * 2.0**-11  # of float16, in which the cache holds them
    assert (np.abs(audio - expected["audio"]) <= 2e-4 + rounding).all()
