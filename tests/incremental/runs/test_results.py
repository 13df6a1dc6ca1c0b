"""The metrics against published figures, and the run folder."""

import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from avcil.incremental.errors import RunDamaged
from avcil.incremental.report.select import find_runs
from avcil.incremental.runs.folder import MetricsLog, RunFolder
from avcil.incremental.runs.matrix import AccuracyMatrix
from avcil.incremental.runs.results import (
    CacheIdentity,
    Results,
    read_metrics,
    read_run,
    write_json,
    write_results,
)

CACHE = CacheIdentity(
    dataset="demo", encoder="tiny", fingerprint="f", random_weights=True, clips=400
)
AVE_TOTAL = [104, 106, 105, 79]
AV_CIL_COUNTS = [[83], [75, 87], [66, 85, 74], [62, 84, 79, 42]]
"""One of the two matrices of counts that give every figure published of AV-CIL's run on AVE."""
ICARL_COUNTS = [[83], [64, 80], [47, 63, 84], [34, 45, 59, 73]]
"""One of the matrices of counts that give every figure published of iCaRL-FC's run on AVE."""


def percent(value: float) -> float:
    return round(100 * value, 2)


def test_forgetting_excludes_the_present_step_from_the_best() -> None:
    matrix = AccuracyMatrix([[5], [6, 8], [7, 8, 9]], [10, 10, 10])
    assert matrix.forgetting_by_step == pytest.approx([-0.10, -0.05])
    assert matrix.average_forgetting == pytest.approx(-0.075)
    assert matrix.backward_transfer == pytest.approx(0.1)


def test_every_figure_has_a_definition_of_its_own() -> None:
    """a = .5; .9, .2; .7, .4, .9 on 10, 20 and 10 clips."""
    matrix = AccuracyMatrix([[5], [9, 4], [7, 8, 9]], [10, 20, 10])
    assert matrix.last_accuracy == pytest.approx(24 / 40)
    assert matrix.anytime_accuracy == pytest.approx((0.5 + (0.9 + 0.2) / 2 + 2.0 / 3) / 3)
    assert matrix.old_accuracy == pytest.approx((9 / 10 + 15 / 30) / 2)
    assert matrix.new_accuracy == pytest.approx((0.2 + 0.9) / 2)
    assert matrix.forgetting_including_last == pytest.approx(((0.9 - 0.7) + 0.0) / 2)
    assert matrix.first_minus_last == pytest.approx(((0.5 - 0.7) + (0.2 - 0.4)) / 2)
    assert matrix.first_minus_last == pytest.approx(-matrix.backward_transfer)
    assert matrix.forward_transfer([0.9, 0.5, 0.7]) == pytest.approx((-0.3 + 0.2) / 2)


def test_a_single_task_has_no_figure_of_earlier_tasks() -> None:
    matrix = AccuracyMatrix([[5]], [10])
    for name in ("old_accuracy", "new_accuracy", "forgetting_including_last", "first_minus_last"):
        assert math.isnan(getattr(matrix, name))
    assert math.isnan(matrix.forward_transfer([0.5]))


def test_the_published_av_cil_run_gives_its_published_row() -> None:
    matrix = AccuracyMatrix(AV_CIL_COUNTS, AVE_TOTAL)
    assert [round(a, 6) for a in matrix.by_step] == [0.798077, 0.771429, 0.714286, 0.677665]
    assert [round(f, 6) for f in matrix.forgetting_by_step] == [0.076923, 0.091165, 0.060869]
    assert percent(matrix.mean_accuracy) == 74.04
    assert percent(matrix.average_forgetting) == 7.63


def test_the_published_icarl_run_gives_its_published_row() -> None:
    matrix = AccuracyMatrix(ICARL_COUNTS, AVE_TOTAL)
    assert [round(a, 6) for a in matrix.by_step] == [0.798077, 0.685714, 0.615873, 0.535533]
    assert round(matrix.average_forgetting, 6) == 0.260812
    assert percent(matrix.mean_accuracy) == 65.88
    assert percent(matrix.average_forgetting) == 26.08


def test_forgetting_of_a_head_that_never_forgets_is_zero() -> None:
    assert AccuracyMatrix([[7], [7, 5], [7, 5, 9]], [10, 10, 10]).average_forgetting == 0.0


def test_a_single_task_has_no_forgetting() -> None:
    assert math.isnan(AccuracyMatrix([[7]], [10]).average_forgetting)


def test_accuracy_is_weighted_by_clips_and_not_by_tasks() -> None:
    assert AccuracyMatrix([[10], [10, 0]], [10, 90]).by_step == [1.0, 0.1]


@pytest.mark.parametrize("correct", [[[1, 2]], [[11]], [[-1]], [[1], [1, 1], [1, 1, 1]]])
def test_counts_that_cannot_be_are_refused(correct: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"row \d"):
        AccuracyMatrix(correct, [10, 10])


def results() -> Results:
    return Results(
        cache=CACHE,
        tasks=[["a"], ["b"]],
        total=[10, 10],
        correct=[[7], [6, 8]],
        validation_accuracy=[0.5, 0.5],
        seconds=[1.0, 1.0],
    )


def write_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"seed": 0}')
    write_results(folder, results())
    return folder


def test_results_come_back_as_they_were_written(tmp_path: Path) -> None:
    run = read_run(write_folder(tmp_path / "run"))
    assert run.results == results()
    assert run.config == {"seed": 0}


def test_every_run_folder_is_found_once_even_half_written(tmp_path: Path) -> None:
    whole = write_folder(tmp_path / "demo" / "whole")
    half = write_folder(tmp_path / "demo" / "half")
    (half / "config.json").unlink()
    assert find_runs(tmp_path) == ([half, whole], [])


def test_a_run_of_another_version_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "run")
    stored = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps(stored | {"format": 2}))
    with pytest.raises(RunDamaged, match="run holds run format 2, this version reads 1"):
        read_run(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 1, "cache": {}}'])
def test_damaged_results_are_named(tmp_path: Path, text: str) -> None:
    folder = write_folder(tmp_path / "run")
    (folder / "results.json").write_text(text)
    with pytest.raises(RunDamaged, match="run"):
        read_run(folder)


def test_a_run_without_results_says_how_to_go_on(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "run")
    (folder / "results.json").unlink()
    with pytest.raises(RunDamaged, match="has no results yet: run its `avcil train` command"):
        read_run(folder)


def test_metrics_name_the_line_that_cannot_be_read(tmp_path: Path) -> None:
    line = {
        "task": 0, "epoch": 0, "lr": 0.1, "seconds": 1.0, "validation_accuracy": None,
        "losses": {"ce": 0.5}, "later": "versions may say more",
    }  # fmt: skip
    file = tmp_path / "metrics.jsonl"
    file.write_text(json.dumps(line) + "\n")
    assert read_metrics(tmp_path)[0].losses == {"ce": 0.5}
    file.write_text(json.dumps(line) + '\n{"task": 0, "ep')
    with pytest.raises(RunDamaged, match=r"metrics.jsonl, line 2, is not an epoch"):
        read_metrics(tmp_path)


def test_leak_free_accuracy_is_there_only_where_it_was_counted() -> None:
    without = results()
    assert without.leak_free is None
    without.leak_free_total, without.leak_free_correct = [5, 5], [[5], [5, 0]]
    assert without.leak_free is not None
    assert without.leak_free.by_step == [1.0, 0.5]


@pytest.fixture(params=[0o022, 0o002, 0o077])
def mask(request: pytest.FixtureRequest) -> Iterator[int]:
    mask: int = request.param
    before = os.umask(mask)
    yield mask
    os.umask(before)


def test_the_umask_says_who_may_read_a_run(tmp_path: Path, mask: int) -> None:
    folder = RunFolder(write_folder(tmp_path / "run"))
    metrics = MetricsLog(folder.path, epochs=1, tensorboard=False)
    metrics.write({"task": 0, "epoch": 0})
    metrics.rewind(0, 1)
    folder.save_state({"task": 0})
    for task in range(2):
        folder.finish_task(task, {"weight": torch.zeros(2)}, {}, results())
    folder.save_state({"task": 1})
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.path.iterdir()}
    weights = {"task-0.safetensors", "task-1.safetensors"}
    assert set(modes) == {"config.json", "metrics.jsonl", "results.json", "state.pt"} | weights
    assert set(modes.values()) == {0o666 & ~mask}


def test_a_broken_tensorboard_is_logged_once_and_stops_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    metrics = MetricsLog(tmp_path, epochs=2, tensorboard=True)
    metrics.write({"task": 0, "epoch": 0})
    metrics.write({"task": 0, "epoch": 1})
    assert capsys.readouterr().err.count("TensorBoard is installed but cannot be used") == 1
    assert len((tmp_path / "metrics.jsonl").read_text("utf-8").splitlines()) == 2


def test_a_write_takes_over_what_a_kill_left_behind(tmp_path: Path) -> None:
    (tmp_path / ".a.json.partial").write_text('{"cut')
    write_json(tmp_path / "a.json", {"a": "é"})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"a": "é"}


def test_a_write_that_fails_leaves_the_old_text_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "a.json", 1)

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_json(tmp_path / "a.json", 2)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "1"
