"""The examples in CONTRIBUTING.md and docs/plugins.md work as they stand there."""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from avcil.cache.reader import FeatureStore
from avcil.cli import app
from avcil.extract.datasets import Where, describe
from avcil.extract.encoders import load_encoder
from avcil.extract.encoders.base import Media
from avcil.incremental.config.resolve import Request
from avcil.incremental.heads import HEADS
from avcil.incremental.launch.schedule import resolve_all
from avcil.incremental.methods import METHODS
from avcil.incremental.report.make import find

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
PAGES = PAGE.read_text() + (ROOT / "docs" / "plugins.md").read_text()
FILES = dict(re.findall(r"```(?:python|toml)\n# (\w+\.(?:py|toml))\n(.*?)```", PAGES, re.DOTALL))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with the files of the page."""
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


def train(cache: Path, runs: Path, *arguments: str) -> str:
    small = ("--tasks", "3", "--memory", "12", "--epochs", "2", "--set", "head.width=8")
    command = ["train", "--cache", str(cache), "--runs", str(runs), *small, *arguments]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_method_trains_and_the_table_shows_it(folder: Path, toy_cache: Path) -> None:
    train(toy_cache, folder, "--method", "my_method.py:MyMethod", "--set", "method.margin=0.2")
    [benchmark] = find([folder])
    [table] = importlib.import_module("my_table").LAST.tables([benchmark], ())
    [[label, accuracy]] = table.rows
    assert label.text == "My method"
    assert benchmark.rows[0].facts.title == "My method"
    assert 0 <= accuracy.value <= 100


def test_the_recipe_changes_its_base(folder: Path, toy_store: FeatureStore) -> None:
    recipe = "my_recipe.toml"
    own, guided = (
        resolve_all(toy_store, [Request(method=method, recipe=recipe, settings={"tasks": 3})])[0]
        for method in ("my_method.py:MyMethod", "guided")
    )
    assert (own.method["margin"], own.epochs, own.head["width"]) == (0.2, 40, 256)
    assert guided.losses["kd"] == 0.5


def test_the_entry_points_have_groups_that_are_looked_up(folder: Path) -> None:
    groups = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["entry-points"]
    assert {*groups} == {METHODS.group, HEADS.group}


def test_the_head_trains(folder: Path, toy_cache: Path) -> None:
    train(toy_cache, folder, "--head", "my_head.py:MyHead", "--method", "finetune")
    [benchmark] = find([folder])
    assert benchmark.rows[0].head == "my_head.py:MyHead"


def test_the_encoder_gives_the_tokens_that_it_describes(folder: Path) -> None:
    encoder = load_encoder("my_encoder.py:ColorAndLoudness", torch.device("cpu"))
    frames = np.full((2, 4, 4, 3), 255, np.uint8)
    clip = Media(frames, np.arange(4) // 2, np.zeros(encoder.sample_rate, np.float32))
    [tokens] = encoder.encode([clip])
    described = encoder.encoding(seconds=1.0, visual_rate_hz=4.0)
    assert tokens.visual.shape == (described.visual_tokens, described.visual_width)
    assert tokens.audio.shape == (described.audio_tokens, described.audio_width)
    assert tokens.visual.max() == 1


def test_the_card_is_a_valid_one() -> None:
    cards = pytest.importorskip("avcil.benchmarks.cards")
    [text] = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    fields = tomllib.loads(text)
    card = cards.Card(name="mine", **{**fields, "lists": [cards.Lists(**fields["lists"][0])]})
    assert card.lists[0].form in importlib.import_module("avcil.extract.datasets.lists").READERS


def test_the_data_set_lists_its_clips(folder: Path) -> None:
    for label in ("cat", "dog"):
        for number in range(5):
            file = folder / "mine" / label / f"{label}{number}.mp4"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    dataset = describe("my_data.py:load").load(Where(data=folder))
    assert dataset.classes == ("cat", "dog")
    assert sorted(clip.split for clip in dataset.clips) == ["test"] * 2 + ["train"] * 8
