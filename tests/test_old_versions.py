"""A cache and run folders that version 0.1.0 wrote still open, resume and report.

`data/written-by-0.1.0` holds the toy cache of conftest.py, with 6, 2 and 3 clips per class and
split (one of them failed, another has a note), a finished run, and one killed in its second task.
"""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from avcil.cache.reader import FeatureStore
from avcil.cache.schema import SPLITS
from avcil.cache.verify import verify
from avcil.cli import app
from avcil.incremental.runs.results import read_run

OLD = Path(__file__).parent / "data" / "written-by-0.1.0"
FINISHED, CUT = "guided-3tasks-seed0-706b0d5d", "icarl-nme-3tasks-seed0-8a96f55b"
SETTINGS = "--tasks 3 --epochs 4 --memory 12 --set head.width=8 --set head.heads=2"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    shutil.copytree(OLD / "runs", tmp_path / "runs")
    return tmp_path / "runs"


def train(runs: Path, method: str) -> str:
    command = f"train --cache {OLD / 'features.zarr'} --runs {runs} --method {method} {SETTINGS}"
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == 0, done.output
    return done.output


def test_an_old_cache_is_whole_and_reads_as_the_version_that_wrote_it_read_it() -> None:
    store = FeatureStore.open(OLD / "features.zarr")
    assert verify(OLD / "features.zarr").damages == []
    assert store.failures == {"goat-train-5": "no audio track"}
    assert store.notes == {"bell-val-0": "0.5 s of silence filled in"}
    clips = store.load(np.sort(np.concatenate([store.rows(split) for split in SPLITS])))
    assert len(clips.labels) == 65
    found = hashlib.sha256(clips.visual.tobytes() + clips.audio.tobytes()).hexdigest()
    assert found == "4eda68f38aa553091e6cc30ce5a8d24260c62c2a5d7f869bade93ae14e395fc4"


def test_an_old_run_that_is_finished_is_not_trained_again(runs: Path) -> None:
    before = (runs / "toy" / FINISHED / "results.json").read_bytes()
    assert f"{FINISHED}: done before" in train(runs, "guided")
    assert (runs / "toy" / FINISHED / "results.json").read_bytes() == before


def test_an_old_run_that_was_killed_goes_on_from_its_resume_point(runs: Path) -> None:
    folder = runs / "toy" / CUT
    before = json.loads((folder / "results.json").read_text())
    train(runs, "icarl-nme")
    after = json.loads((folder / "results.json").read_text())
    assert after["correct"][:1] == before["correct"]
    assert len(after["correct"]) == 3
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(line["task"], line["epoch"]) for line in lines] == [
        (task, epoch) for task in range(3) for epoch in range(4)
    ]
    first = (OLD / "runs" / "toy" / CUT / "task-0.safetensors").read_bytes()
    assert (folder / "task-0.safetensors").read_bytes() == first


def test_an_old_run_of_der_is_one_of_derpp(runs: Path) -> None:
    path = runs / "toy" / FINISHED / "config.json"
    config = json.loads(path.read_text())
    config["method"] = {"name": "der"}
    path.write_text(json.dumps(config))
    assert read_run(path.parent).config["method"]["name"] == "derpp"
    shown = CliRunner().invoke(app, ["report", str(runs), "--format", "csv"])
    assert "derpp" in shown.output


def test_old_runs_are_reported(runs: Path) -> None:
    shown = CliRunner().invoke(app, ["report", str(runs), "--format", "csv"])
    assert shown.exit_code == 0, shown.output
    assert "guided" in shown.output
    assert f"{CUT} is unfinished: 1 of 3 tasks are done" in shown.output
