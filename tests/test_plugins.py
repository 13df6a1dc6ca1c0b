"""Plug-ins in files and packages: found from anywhere, and distinguished by their source."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from avcil.cache.reader import FeatureStore
from avcil.cli import app
from avcil.errors import AvcilError
from avcil.extract.datasets import Where, describe
from avcil.extract.encoders import absolute, load_encoder
from avcil.incremental.config.config import Config
from avcil.incremental.config.resolve import Request
from avcil.incremental.heads import HEADS
from avcil.incremental.launch.schedule import resolve_all, train
from avcil.incremental.methods import METHODS
from avcil.registry import REFERENCE

METHOD = """
from dataclasses import dataclass
from torch.nn import functional
from avcil.incremental.methods.base import Method
from my_losses import scale

@dataclass(frozen=True, kw_only=True)
class Mine(Method):
    title = "My method"
    head = {"name": "my_head.py:Loud"}

    def loss(self, batch, new, old, task):
        return {"ce": scale() * functional.cross_entropy(new.logits, batch.labels)}
"""
HEAD = """
from torch import nn
from avcil.incremental.heads.base import Encoded, Head
from avcil.incremental.heads.layers import masked_mean

class Loud(Head):
    def __init__(self, options, encoding):
        super().__init__()
        self.width = options.width
        self.audio = nn.Linear(encoding.audio_width, options.width)

    def forward(self, batch, first):
        features = self.audio(masked_mean(batch.audio, batch.audio_mask))
        return Encoded(features, features[first:, None], None, (features,))
"""
SMALL = "--tasks 3 --epochs 2 --memory 12 --set head.width=8"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a method, a head, and a module that the method imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_method.py").write_text(METHOD)
    (tmp_path / "my_head.py").write_text(HEAD)
    (tmp_path / "my_losses.py").write_text("def scale(): return 1")
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def configure(store: FeatureStore, method: str, **more: object) -> Config:
    [config] = resolve_all(store, [Request(method=method, settings={"tasks": 3, **more})])
    return config


def run(command: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == status, (done.output, done.exception)
    return done.output


def test_a_file_is_one_method_from_whichever_folder_it_is_named(
    folder: Path, toy_store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = configure(toy_store, "my_method.py:Mine")
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    names = [f"{folder}/my_method.py:Mine", "../my_method.py:Mine"]
    for there in (configure(toy_store, name) for name in names):
        assert there.run_name == here.run_name
        assert there.head_class().__name__ == "Loud"  # beside the method
    assert str(folder) not in str(here.stored())
    assert here.stored()["head"]["name"] == "my_head.py:Loud"


@pytest.mark.parametrize("file", ["my_method.py", "my_losses.py", "my_head.py"])
def test_edited_code_is_another_run_in_the_same_process_too(
    file: str, folder: Path, toy_store: FeatureStore
) -> None:
    """Whether the class itself, what it imports, or its head was edited."""
    before = configure(toy_store, "my_method.py:Mine")
    (folder / "notes.py").write_text("# nothing imports this")
    assert configure(toy_store, "my_method.py:Mine").run_name == before.run_name
    with (folder / file).open("a") as text:
        text.write("\nEDITED = True\n")
    after = configure(toy_store, "my_method.py:Mine")
    assert after.run_name != before.run_name
    kinds = [after.method_class(), after.head_class()]
    assert any(
        hasattr(sys.modules[name], "EDITED")
        for name in {*(kind.__module__ for kind in kinds), "my_losses"}
    )


def test_a_package_is_hashed_as_far_as_its_class_imports_it(folder: Path) -> None:
    package = folder / "mine"
    package.mkdir()
    files = {
        "__init__.py": "",
        "method.py": METHOD.replace("my_losses", ".parts.losses"),
        "parts/__init__.py": "",
        "parts/losses.py": "def scale():\n    from mine import late\n    return late.one\n",
        "late.py": "one = 1",
        "other.py": "",
    }
    (package / "parts").mkdir()
    for name, text in files.items():
        (package / name).write_text(text)
    sys.path.insert(0, str(folder))
    sources = {"": METHODS.identify("mine.method:Mine").source}
    for name, text in files.items():
        (package / name).write_text(f"{text}\n# edited")
        sources[name] = METHODS.identify("mine.method:Mine").source
        (package / name).write_text(text)
    assert sources.pop("other.py") == sources[""]
    assert len(set(sources.values())) == len(files)


def test_a_run_goes_on_with_the_code_that_it_began_with(
    folder: Path, toy_store: FeatureStore
) -> None:
    """In the process that trains it; one that did not begin yet is refused after an edit."""
    began = configure(toy_store, "my_method.py:Mine", epochs=2)
    kind = began.method_class()
    (folder / "my_method.py").write_text(METHOD + "# edited")
    assert began.method_class() is kind
    with pytest.raises(AvcilError, match=r"was edited since the run began: .* run the same comm"):
        METHODS.use(f"{folder}/my_method.py:Mine", "00000000")


def test_the_name_of_a_run_stays_below_its_folder(folder: Path, toy_store: FeatureStore) -> None:
    for name in ("...py", "a b\n.py", "x" * 200 + ".py"):
        shutil.copy("my_method.py", name)
        config = configure(toy_store, f"{name}:Mine")
        assert "/" not in config.run_name
        assert len(config.run_name) < 200
        assert not config.run_name.startswith("..") or "-" in config.run_name


def test_force_trains_a_finished_run_again(folder: Path, toy_cache: Path) -> None:
    command = f"train --cache {toy_cache} --runs runs {SMALL} --method my_method.py:Mine"
    first = run(command)
    path = Path(first.splitlines()[-1])
    (path / "mark").touch()
    assert "done before" in run(command)
    assert (path / "mark").exists()
    assert "done before" not in run(f"{command} --force")
    assert not (path / "mark").exists()
    shutil.rmtree(folder / "my_head.py", ignore_errors=True)
    (folder / "my_method.py").unlink()
    assert "My method" in run("report runs")


WRONG = {
    "no file": ("none.py:Mine", r"'none.py:Mine': there is no file /.*/none\.py$"),
    "no class named": ("my_method.py", r"'my_method\.py' is a file: name what is in it, my_met"),
    "no such class": ("my_method.py:Yours", r"my_method\.py does not define 'Yours'; its methods"),
    "another kind": ("my_head.py:Loud", r"not a subclass .*: it is a head, choose it with --head"),
    "syntax": ("syntax.py:Mine", r"cannot be imported: SyntaxError: .* \(/.*syntax\.py, line 2\)$"),
    "dependency": ("needs.py:Mine", r"No module named 'no_such_lib' \(/.*needs\.py, line 3\)$"),
    "exception": ("fails.py:Mine", r"ZeroDivisionError: division by zero \(/.*fails\.py, line 1\)"),
    "reserved": (
        "named.py:Mine",
        r"has a setting 'source', a name that configurations use",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_cannot_be_used_is_one_line(
    case: str, folder: Path, toy_store: FeatureStore
) -> None:
    (folder / "syntax.py").write_text("x = 1\ndef f(:\n")
    (folder / "needs.py").write_text("\n\nimport no_such_lib")
    (folder / "fails.py").write_text("1 / 0")
    (folder / "named.py").write_text(METHOD.replace("    title", "    source: int = 0\n    title"))
    name, message = WRONG[case]
    with pytest.raises(AvcilError, match=message) as raised:
        configure(toy_store, name)
    assert "\n" not in str(raised.value)


def test_a_loss_term_that_is_not_declared_is_named(
    folder: Path, toy_store: FeatureStore, tmp_path: Path
) -> None:
    more = METHOD.replace('return {"ce"', 'return {"mine": 0.0, "also": 0.0, "ce"')
    (folder / "my_method.py").write_text(more)
    config = configure(toy_store, "my_method.py:Mine", epochs=1)
    with pytest.raises(AvcilError, match="the loss of Mine returns mine, also, which its class"):
        train(toy_store, [config], tmp_path / "runs")


def test_a_class_that_two_paths_name_is_refused_nowhere_and_a_head_by_its_kind(
    folder: Path,
) -> None:
    assert not REFERENCE.fullmatch("my_head.py/x:Loud")
    with pytest.raises(AvcilError, match=r"it is a method, choose it with --method"):
        HEADS["my_method.py:Mine"]


DATA = """
from avcil.extract.datasets.base import Clip, Dataset

def load(where):
    clips = [Clip(str(i), where.data / f"{i}.mp4", "cat", "train") for i in range(3)]
    return Dataset(name="mine", classes=("cat",), clips=tuple(clips))

def wrong_label(where):
    return Dataset(name="mine", classes=("dog",), clips=load(where).clips)

def fails(where):
    return {}["a"]
"""


def test_a_data_set_in_a_file(folder: Path) -> None:
    (folder / "my_data.py").write_text(DATA)
    where = Where(data=folder)
    assert len(describe("my_data.py:load").load(where).clips) == 3
    with pytest.raises(AvcilError, match=r"'0' .* has the class 'cat' .*: the classes are dog"):
        describe("my_data.py:wrong_label").load(where)
    with pytest.raises(AvcilError, match=r"failed: KeyError: 'a' \(/.*my_data\.py, line 12\)"):
        describe("my_data.py:fails").load(where)
    with pytest.raises(AvcilError, match=r"it is a method, choose it with --method"):
        describe("my_method.py:Mine")


ENCODER = """
from avcil.extract.encoders.base import Encoder

class Silent(Encoder):
    sample_rate = 16_000
    resizing = None
    def __init__(self, device): pass
    def encoding(self, *, seconds, visual_rate_hz): raise NotImplementedError
    def encode(self, clips): return []

load = Silent
def fails(device):
    return [][0]
"""


def test_an_encoder_in_a_file(folder: Path) -> None:
    (folder / "my_encoder.py").write_text(ENCODER)
    assert absolute("my_encoder.py:load") == f"{folder}/my_encoder.py:load"
    cpu = torch.device("cpu")
    assert load_encoder("my_encoder.py:load", cpu).sample_rate == 16_000
    with pytest.raises(AvcilError, match=r"failed: IndexError: .*my_encoder\.py, line 13\)"):
        load_encoder("my_encoder.py:fails", cpu)
