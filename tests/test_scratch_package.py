"""A package outside the repository: its method, head, encoder and data set, used to the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avcil.extract.demo import FRAME_RATE_HZ, demo_clips, draw_clip
from avcil.extract.demo.mp4 import write_mp4
from avcil.extract.demo.sounds import SAMPLE_RATE
from avcil.incremental.runs.results import read_run
from avcil.incremental.train.checkpoint import SECONDS_BETWEEN

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

FILES = {
    "scratch_method.py": """
from dataclasses import dataclass
from torch.nn import functional
from avcil.incremental.data.clips import Replay
from avcil.incremental.methods.base import Method

@dataclass(frozen=True, kw_only=True)
class Smooth(Method):
    smoothing: float = 0.1
    title = "Smoothed replay"
    replay = Replay.MIXED

    def loss(self, batch, new, old, task):
        logits, labels = new.logits, batch.labels
        return {"ce": functional.cross_entropy(logits, labels, label_smoothing=self.smoothing)}
""",
    "scratch_head.py": """
from torch import nn
from avcil.incremental.heads.base import Encoded, Head
from avcil.incremental.heads.layers import masked_mean

class Product(Head):
    def __init__(self, options, encoding):
        super().__init__()
        self.width = options.width
        self.visual = nn.Linear(encoding.visual_width, options.width)
        self.audio = nn.Linear(encoding.audio_width, options.width)

    def forward(self, batch, first):
        visual = self.visual(masked_mean(batch.visual, batch.visual_mask))
        audio = self.audio(masked_mean(batch.audio, batch.audio_mask))
        features = visual * audio
        return Encoded(features, features[first:, None], None, (features,))
""",
    "scratch_encoder.py": """
import numpy as np
from avcil.cache.schema import Encoding, Tokens
from avcil.extract.encoders.base import Encoder

class Plain(Encoder):
    sample_rate = 16_000
    resizing = None

    def __init__(self, device):
        pass

    def encoding(self, *, seconds, visual_rate_hz):
        return Encoding(
            encoder="plain", fingerprint=f"plain-1 {seconds} {visual_rate_hz}",
            visual_tokens=round(seconds * visual_rate_hz), visual_width=3,
            audio_tokens=round(seconds * 25), audio_width=4,
            visual_rate_hz=visual_rate_hz, audio_rate_hz=25.0, seconds=seconds,
        )

    def encode(self, clips):
        return [self.one(clip) for clip in clips]

    def one(self, clip):
        frames = clip.frames.mean((1, 2))[clip.frame_index] / 255
        sound = clip.waveform[: len(clip.waveform) // 640 * 640].reshape(-1, 4, 160)
        return Tokens(frames, np.sqrt((sound**2).mean(2)))
""",
    "scratch_data.py": """
from avcil.extract.datasets.base import Clip, Dataset

def load(where):
    files = sorted((where.data / "clips").glob("*/*/*.mp4"))
    clips = [Clip(file.stem, file, file.parent.name, file.parts[-3]) for file in files]
    classes = sorted({clip.label for clip in clips})
    return Dataset(name="scratch", classes=tuple(classes), clips=tuple(clips))
""",
}
NAMES = {
    "file": (
        "scratch_method.py:Smooth", "scratch_head.py:Product",
        "scratch_encoder.py:Plain", "scratch_data.py:load",
    ),
    "entry point": ("smooth", "product", "plain", "scratch"),
}  # fmt: skip
ENTRY_POINTS = """
[avcil.methods]
smooth = scratch_method:Smooth
[avcil.heads]
product = scratch_head:Product
[avcil.encoders]
plain = scratch_encoder:Plain
[avcil.datasets]
scratch = scratch_data:load
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty clips of four classes, and the package, installed beside them."""
    for clip in demo_clips():
        if clip.label < 4 and clip.number < (6 if clip.split == "train" else 2):
            frames, waveform = draw_clip(clip, 0)
            path = tmp_path / "clips" / clip.path
            write_mp4(path, frames, FRAME_RATE_HZ, waveform, SAMPLE_RATE)
    for name, text in FILES.items():
        assert len(text.splitlines()) <= 40
        (tmp_path / name).write_text(text)
    info = tmp_path / "scratch-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: scratch\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return tmp_path


def start(folder: Path, arguments: list[str], pause_s: float = 30) -> subprocess.Popen[str]:
    search = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "avcil", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": search, SECONDS_BETWEEN: str(pause_s)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(folder: Path, arguments: list[str]) -> str:
    process = start(folder, arguments)
    shown, errors = process.communicate()
    assert process.returncode == 0, errors
    return shown + errors


def weights(runs: Path) -> dict[str, bytes]:
    files = runs.rglob("task-*.safetensors")
    return {str(path.relative_to(runs)): path.read_bytes() for path in files}


@pytest.mark.parametrize("how", NAMES)
def test_a_package_is_extracted_trained_killed_resumed_and_reported(how: str, folder: Path) -> None:
    method, head, encoder, data = NAMES[how]
    extract = ["extract", "--dataset", data, "--data", ".", "--encoder", encoder]
    finish(folder, [*extract, "--seconds", "2", "--rate", "8"])

    def train(runs: str) -> list[str]:
        chosen = ["--method", method, "--head", head, "--seeds", "0-1", "--tasks", "2"]
        size = ["--epochs", "60", "--memory", "8", "--set", "head.width=8"]
        return ["train", "--data", ".", "--runs", runs, *chosen, *size, "--parallel", "2"]

    process = start(folder, train("cut"), pause_s=0)
    while not list(folder.glob("cut/*/*/state.pt")) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    finish(folder, train("cut"))
    finish(folder, train("whole"))
    assert weights(folder / "cut") == weights(folder / "whole") != {}
    assert all(read_run(path).results.complete for path in folder.glob("cut/scratch/*"))

    source = folder / "scratch_method.py"
    edited = source.read_text().replace("return {", "logits = 2 * logits\n        return {")
    source.write_text(edited)
    shown = finish(folder, train("cut"))
    assert "done before" not in shown
    assert len(list(folder.glob("cut/scratch/*"))) == 4
    for name in FILES:
        (folder / name).unlink()
    report = finish(folder, ["report", "cut", "--format", "markdown"])
    assert "| Smoothed replay" in report
