"""What a report counts, and what it says of the rest."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from avcil.incremental.errors import NoRuns
from avcil.incremental.report.gather import gather
from avcil.incremental.results import read_run, write_results

MakeRun = Callable[..., Path]


def test_runs_are_counted_once_where_folders_overlap(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run()
    assert [run.folder for run in gather([tmp_path, folder, tmp_path / "demo"]).runs] == [folder]


def test_an_unfinished_run_is_left_out_by_name(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(seed=0)
    folder = make_run(seed=1)
    results = read_run(folder).results
    results.correct = results.correct[:3]
    write_results(folder, results)
    gathered = gather([tmp_path])
    assert len(gathered.runs) == 1
    assert gathered.left_out == [
        f"{folder} is unfinished: 3 of 5 tasks are done; "
        "run its `avcil train` command again to finish it"
    ]


@pytest.mark.parametrize("file", ["config.json", "results.json"])
def test_a_damaged_run_is_left_out_by_name(make_run: MakeRun, tmp_path: Path, file: str) -> None:
    make_run(seed=0)
    folder = make_run(seed=1)
    (folder / file).write_text('{"cut')
    gathered = gather([tmp_path])
    assert len(gathered.runs) == 1
    assert str(folder) in gathered.left_out[0]


def test_a_configuration_that_does_not_name_its_method_is_left_out(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run(seed=0)
    folder = make_run(seed=1)
    (folder / "config.json").write_text(json.dumps({"seed": 1, "dataset": "demo"}))
    assert gather([tmp_path]).left_out == [
        f"{folder / 'config.json'} does not say head.name, method.name, modality"
    ]


def test_no_runs_at_all_says_how_to_make_some(tmp_path: Path) -> None:
    with pytest.raises(NoRuns, match=r"no finished run in .*avcil train --dataset .*avcil demo"):
        gather([tmp_path])
    with pytest.raises(NoRuns, match=r"there is no folder .*nowhere.*avcil train"):
        gather([tmp_path / "nowhere"])


def test_only_damaged_runs_are_no_runs_and_are_named(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run()
    (folder / "results.json").write_text("")
    with pytest.raises(NoRuns, match=f"left out: {folder}"):
        gather([tmp_path])
