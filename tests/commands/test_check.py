"""`avcil check` finds planted faults, and says what is wrong."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from avcil.checks import Check, run_checks
from avcil.cli import app
from avcil.errors import AvcilError
from avcil.extract.contract import dataset_checks, encoder_checks
from avcil.extract.datasets import Where
from avcil.incremental.contract.heads import head_checks
from avcil.plugins import Source

HEAD = """
import torch
from torch import nn
from avcil.incremental.heads.base import Encoded, Head
from avcil.incremental.heads.layers import masked_mean

class Mine(Head):
    def __init__(self, options, encoding):
        super().__init__()
        self.width = options.width
        self.audio = nn.Linear(encoding.audio_width, options.width)

    def forward(self, batch, first):
        features = self.audio(masked_mean(batch.audio, batch.audio_mask))
        return Encoded(features, features[first:, None], None, (features,))
"""
HEAD_FAULTS = {
    "shape": ("        return", "        features = features[:, :5]\n        return", "`features`"),
    "padding": ("masked_mean(batch.audio, batch.audio_mask)", "batch.audio.mean(1)", "padding"),
    "batch": ("        return", "        features = features - features.mean(0)\n        return",
              "a clip has other features alone than in a batch"),
    "first": ("features[first:, None]", "features[:, None]", r"with first=1, `tokens` must be"),
    "idle": ("        self.audio =", "        self.spare = nn.Linear(2, 2)\n        self.audio =",
             r"no gradient reaches head\.spare\.weight"),
    "unseeded": ("        self.audio =",
                 "        import random\n        self.extra = nn.Parameter("
                 "torch.full((1,), random.random()))\n        self.audio =",
                 "the initial weights differ"),
    "raises": ("        features =", "        1 / 0\n        features =",
               r"ZeroDivisionError: division by zero \(/.*head\.py, line 14\)"),
}  # fmt: skip
ENCODER = """
import numpy as np
from avcil.cache.schema import Encoding, Tokens
from avcil.extract.encoders.base import Encoder

class Mine(Encoder):
    sample_rate = 1600
    resizing = None

    def __init__(self, device):
        self.scale = 1.0

    def encoding(self, *, seconds, visual_rate_hz):
        return Encoding(
            encoder="mine", fingerprint="1", visual_tokens=round(seconds * visual_rate_hz),
            visual_width=3, audio_tokens=round(seconds * 25), audio_width=1,
            visual_rate_hz=visual_rate_hz, audio_rate_hz=25.0, seconds=seconds,
        )

    def encode(self, clips):
        return [self.one(clip) for clip in clips]

    def one(self, clip):
        loud = np.abs(clip.waveform.reshape(-1, 64)).mean(1, keepdims=True)
        return Tokens(self.scale * clip.frames.mean((1, 2))[clip.frame_index], loud)
"""
ENCODER_FAULTS = {
    "shape": ("visual_width=3", "visual_width=4", r"visual tokens of the shape \[16, 4\]"),
    "repeat": ("        loud =", "        self.scale += 1\n        loud =", "the second time"),
    "weights": ("self.scale = 1.0", "self.scale = np.random.default_rng().random()",
                "a second encoder with the same fingerprint gives other tokens"),
    "order": ("for clip in clips]", "for clip in clips][::-1]", "in the order of the clips"),
    "input": ("        loud =", "        clip.waveform[:] = 0\n        loud =",
              "`encode` changes the frames or the waveform"),
    "nan": ("        return Tokens(", "        loud[0] = np.nan\n        return Tokens(",
            "audio tokens are infinite or NaN"),
}  # fmt: skip
DATA = """
from avcil.extract.datasets.base import Clip, Dataset

def load(where):
    files = sorted(where.data.glob("*/*.mp4"))
    splits = ["train", "train", "val", "test"]
    clips = [
        Clip(file.stem, file, file.parent.name, splits[number % 4])
        for number, file in enumerate(files)
    ]
    return Dataset(name="mine", classes=("cat", "dog"), clips=tuple(clips))
"""
DATA_FAULTS = {
    "split": ('"val", "test"', '"val", "val"', "2 of 2 classes have no test clip: cat, dog"),
    "file": ("file, file.parent.name", "file.with_suffix('.avi'), file.parent.name",
             r"8 of 8 clips have no file, such as .*\.avi"),
    "shared": ("Clip(file.stem, file,", "Clip(file.stem, files[0],", "8 clips each|several clips"),
    "order": ("sorted(where.data.glob(\"*/*.mp4\"))",
              "list({str(each): each for each in set(map(str, where.data.glob('*/*.mp4')))})\n"
              "    from pathlib import Path\n    files = [Path(each) for each in files]",
              "another process lists other clips, or in another order"),
    "name": ('name="mine"', 'name="../mine"', "cannot be the name of a data set"),
}  # fmt: skip

SLOW = {"order": pytest.mark.slow}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a head, an encoder, a data set and its clips."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, text in (("head", HEAD), ("encoder", ENCODER), ("data", DATA)):
        (tmp_path / f"my_{name}.py").write_text(text)
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number in range(4):
            (tmp_path / label / f"{label}{number}.mp4").touch()
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def plant(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, after))


def problems(checks: Iterator[Check], file: Path) -> str:
    return "\n".join(found.problem for found in run_checks(checks, Source(file)) if found.problem)


@pytest.mark.parametrize("fault", [None, *HEAD_FAULTS])
def test_faults_of_a_head_are_found(fault: str | None, folder: Path) -> None:
    before, after, message = HEAD_FAULTS[fault] if fault else ("", "", "^$")
    if fault:
        plant(folder / "my_head.py", before, after)
    found = problems(head_checks("my_head.py:Mine", None), folder / "my_head.py")
    assert re.search(message, found), found


@pytest.mark.parametrize("fault", [None, *ENCODER_FAULTS])
def test_faults_of_an_encoder_are_found(fault: str | None, folder: Path) -> None:
    before, after, message = ENCODER_FAULTS[fault] if fault else ("", "", "^$")
    if fault:
        plant(folder / "my_encoder.py", before, after)
    found = problems(encoder_checks("my_encoder.py:Mine"), folder / "my_encoder.py")
    assert re.search(message, found), found


@pytest.mark.parametrize(
    "fault", [None, *(pytest.param(each, marks=SLOW.get(each, ())) for each in DATA_FAULTS)]
)
def test_faults_of_a_data_set_are_found(fault: str | None, folder: Path) -> None:
    before, after, message = DATA_FAULTS[fault] if fault else ("", "", "^$")
    if fault:
        plant(folder / "my_data.py", before, after)
    checks = (
        check
        for check in dataset_checks("my_data.py:load", Where(data=folder))
        if fault == "order" or "again" not in check.what  # which starts two processes
    )
    found = problems(checks, folder / "my_data.py")
    assert re.search(message, found), found


METHOD = """
import random
from dataclasses import dataclass
import torch
from torch.nn import functional
from avcil.incremental.data.clips import Replay
from avcil.incremental.methods.base import Method

STEPS = []

@dataclass(frozen=True, kw_only=True)
class Mine(Method):
    replay = Replay.PAIRED

    def loss(self, batch, new, old, task):
        scale = 1
        loss = functional.cross_entropy(new.logits, batch.labels)
        return {"ce": scale * loss}
"""
METHOD_FAULTS = {
    "none": ("scale = 1", "scale = 1.0", "all checks hold"),
    "no gradient": ("new.logits, ", "new.logits.detach(), ", "the loss terms ce have no gradient"),
    "does not fall": ("return {", "return {'ce': 0 * loss + 3} if 1 else {", "loss does not fall"),
    "reads clips": (
        "        return",
        "        STEPS.append(batch.visual)\n        loss = loss + 1e-3 * new.logits.mean() * "
        "torch.cat(STEPS).mean()\n        return",
        "keeps clips of earlier tasks in memory: my_method_.*STEPS holds the tokens of 'bell-",
    ),
    "keeps clips in its notes": (
        "    def loss",
        "    def after_task(self, network, clips, task):\n        kept = network.notes.all()\n"
        "        own = torch.cat([each.visual for each in clips])\n"
        "        return {f'clips{task.index}': own, **kept}\n\n    def loss",
        r"notes\.clips0 holds the tokens of 'bell-train-\d+', a clip of an earlier task",
    ),
    "not seeded": ("scale = 1", "scale = 1 + random.random()", "two trainings with the same seed"),
    "order of a set": (
        "scale = 1",
        "scale = 1 + [*{'a', 'b', 'c', 'd', 'e', 'f'}].index('a')",
        "two trainings with the same seed",
    ),
    "state": (
        "scale = 1",
        "STEPS.append(0)\n        scale = 1 / len(STEPS)",
        "a stopped run resumes bit for bit\n    the weights after task [23] differ: a run that ",
    ),
    "raises": ("scale = 1", "scale = {}['a']", r"training failed: KeyError: 'a' \(/.*, line 16\)"),
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", METHOD_FAULTS)
def test_faults_of_a_method_are_found(fault: str, folder: Path) -> None:
    (folder / "my_method.py").write_text(METHOD)
    before, after, message = METHOD_FAULTS[fault]
    plant(folder / "my_method.py", before, after)
    shown = CliRunner().invoke(app, ["check", "my_method.py:Mine"])
    assert re.search(message, shown.stdout), shown.stdout
    assert shown.exit_code == (fault != "none")


def test_the_kind_is_found_out_or_asked_for(folder: Path) -> None:
    (folder / "odd.py").write_text("number = 3\ndef f(x): ...\ndef load(device): 1 / 0\n")
    for name, message in {
        "odd.py:number": "no method, head, encoder or data set",
        "odd.py:f": "takes x: a data set is a function of `where`, an encoder of `device`",
        "odd.py:load": r"encoder 'odd\.py:load' failed: ZeroDivisionError: .*, line 3\)",
        "guided": "'guided' is a method and a head: choose one with --kind",
        "none.py:X": r"plug-in 'none\.py:X': there is no file",
    }.items():
        shown = CliRunner().invoke(app, ["check", name])
        assert isinstance(shown.exception, AvcilError)
        assert re.search(message, str(shown.exception)), shown.exception
