"""One run among others: what is the same wherever it goes on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from avcil.cache.reader import FeatureStore
from avcil.incremental.config.resolve import Request
from avcil.incremental.launch.schedule import resolve_all, train
from avcil.incremental.runs.folder import RunFolder
from avcil.incremental.runs.results import read_run, write_results

SETTINGS: dict[str, object] = {"tasks": 2, "epochs": 2, "memory": 12, "head.width": 16}


def test_a_run_goes_on_in_the_precision_in_which_it_began(
    toy_store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of `auto` whose first task was trained where `auto` is bf16, unlike here."""
    (auto,) = resolve_all(toy_store, [Request(settings=SETTINGS)])
    in_bf16 = replace(auto, precision="bf16")
    (folder,) = train(toy_store, [auto], tmp_path, "cpu")
    results = read_run(folder).results
    assert results.versions["precision"] == "fp32"
    in_fp32 = (folder / "task-1.safetensors").read_bytes()
    for name in ("correct", "validation_accuracy", "best_epochs", "exemplars", "seconds"):
        del getattr(results, name)[1:]
    assert "resumed" not in json.loads((folder / "results.json").read_text())
    results.versions |= {"precision": "bf16", "device": "NVIDIA H100"}
    write_results(folder, results)
    other = shutil.copytree(folder, RunFolder.of(tmp_path, in_bf16).path)
    capsys.readouterr()
    train(toy_store, [auto, in_bf16], tmp_path, "cpu")
    told = capsys.readouterr().err
    assert told.count("continues in bf16, as it began; a new run would compute in fp32 here") == 1
    assert read_run(folder).results.resumed == [{"task": 2, "device": "cpu"}]
    resumed = (folder / "task-1.safetensors").read_bytes()
    assert resumed == (other / "task-1.safetensors").read_bytes()
    assert resumed != in_fp32
    train(toy_store, [auto], tmp_path, "cpu")
    assert f"{folder.name}: done before in bf16, mean accuracy" in capsys.readouterr().err
