"""Methods and heads of other packages: chosen, trained, stored and reported as our own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from avcil.cli import app
from avcil.incremental.config.resolve import Request, Subject, resolve
from avcil.incremental.errors import ConfigError
from avcil.incremental.heads.network import head_options
from avcil.incremental.methods import METHODS, method_class
from avcil.incremental.runs.facts import OF_0_1_0, MethodFacts
from avcil.incremental.runs.results import read_run

MODULE = '''
from dataclasses import dataclass
from types import MappingProxyType

from torch import nn
from torch.nn import functional

from avcil.incremental.heads.base import Encoded, Head, HeadOptions
from avcil.incremental.heads.layers import masked_mean
from avcil.incremental.methods.base import Method
from avcil.incremental.data.clips import Replay


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(HeadOptions):
    bias: bool = True


class Audio(Head):
    """The mean of the audio tokens, projected."""

    options = Options

    def __init__(self, options, encoding):
        super().__init__()
        self.width = options.width
        self.projection = nn.Linear(encoding.audio_width, options.width, bias=options.bias)

    def forward(self, batch, first):
        features = self.projection(masked_mean(batch.audio, batch.audio_mask))
        return Encoded(features, features[first:, None], None, (features,))


@dataclass(frozen=True, kw_only=True)
class Mine(Method):
    """Cross-entropy with smoothed labels."""

    smoothing: float = 0.1

    title = "Mine (2026)"
    upper_bound = True
    head = MappingProxyType({"name": "their_package:Audio"})
    replay = Replay.MIXED

    def loss(self, batch, new, old, task):
        loss = functional.cross_entropy(new.logits, batch.labels, label_smoothing=self.smoothing)
        return {"ce": loss}


class Undecorated(Method):
    smoothing: float = 0.1

    def loss(self, batch, new, old, task):
        return {}
'''
SMALL = "--tasks 3 --epochs 2 --memory 12 --set head.width=8"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module of somebody else, on the path."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "their_package.py").write_text(MODULE)
    monkeypatch.syspath_prepend(folder)
    yield folder
    sys.modules.pop("their_package", None)


def install(package: Path, group: str, line: str) -> None:
    info = package / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{line}\n")
    sys.path.insert(0, str(package))  # undone with the path of the fixture


def run(command: str) -> str:
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_method_and_head_of_a_module_are_trained_stored_and_reported(
    package: Path, toy_cache: Path, tmp_path: Path, processes: int
) -> None:
    command = f"train --cache {toy_cache} --runs {tmp_path / 'runs'} {SMALL}"
    run(f"{command} --method their_package:Mine,finetune --parallel {processes}")
    (folder,) = (tmp_path / "runs" / "toy").glob("their*")
    assert folder.name.startswith("their_package_Mine-their_package_Audio-3tasks-seed0-")
    stored = json.loads((folder / "config.json").read_text())
    source = METHODS.identify("their_package:Mine").source
    assert stored["method"] == {
        "name": "their_package:Mine",
        "source": source,
        "smoothing": 0.1,
    }
    assert stored["head"]["name"] == "their_package:Audio"
    assert stored["head"]["bias"] is True
    facts = MethodFacts(title="Mine (2026)", upper_bound=True, head="their_package:Audio")
    assert read_run(folder).results.method == facts
    (package / "their_package.py").unlink()  # a report needs run folders alone
    shown = run(f"report {tmp_path / 'runs'} --tables all --format markdown")
    assert "| Mine (2026) |" in shown  # as papers call it
    assert "Mine (2026) trains on all clips of all tasks seen: not ranked" in shown
    assert "Audio head" not in shown  # its usual one
    for form in ("latex", "html", "csv", "json"):
        assert "Mine" in run(f"report {tmp_path / 'runs'} --tables all --format {form}")


@pytest.mark.slow
def test_a_method_of_the_current_folder_is_found_by_the_command(
    tmp_path: Path, toy_cache: Path
) -> None:
    (tmp_path / "their_package.py").write_text(MODULE)
    command = f"-m avcil train --cache {toy_cache} --runs runs --method their_package:Mine {SMALL}"
    entry = [sys.executable, "-P", *command.split()]  # -P: as `avcil`, without the folder
    done = subprocess.run(entry, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "runs" / "toy").glob("their_package_Mine-*"))) == 1


def test_an_entry_point_names_a_method(package: Path) -> None:
    install(package, "avcil.methods", "mine = their_package:Mine")
    assert method_class("mine").title == "Mine (2026)"
    subject = Subject(dataset="d", fingerprint="f", rows="r", training_clips=400, classes=12)
    for recipe in ("fast", "paper", "avcil"):  # the head of the method wins over the recipe's
        config = resolve(Request(method="mine", recipe=recipe), subject)
        assert config.head["name"] == "their_package:Audio"
    with pytest.raises(ConfigError, match=r"choose from guided, .*, mine \(from their-package\), "):
        method_class("yours")


def test_an_entry_point_names_a_head(package: Path) -> None:
    install(package, "avcil.heads", "sound = their_package:Audio")
    assert head_options("sound", {"bias": False}).width == 512
    with pytest.raises(ConfigError, match=r"head 'sound' has no setting 'layers'; .* bias"):
        head_options("sound", {"layers": 2})


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("their_package:Audio", "their_package:Audio is .*, not a subclass of .*base:Method"),
        ("their_package:Yours", "cannot be imported: AttributeError"),
        ("their_package:Undecorated", r"not a dataclass, .* write @dataclass\(frozen=True"),
        ("avcil.incremental.methods.base:Method", "does not define loss"),
    ],
)
def test_a_method_that_cannot_be_used_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        method_class(name)


def test_what_old_folders_lack_is_what_the_methods_of_0_1_0_say_today() -> None:
    said = {
        name: MethodFacts(
            title=METHODS[name].title,
            upper_bound=METHODS[name].upper_bound,
            head=str(METHODS[name].head.get("name", "")),
        )
        for name in OF_0_1_0
    }
    assert said == OF_0_1_0
