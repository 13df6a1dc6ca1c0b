"""What a report counts, and what it says of the rest."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from avcil.incremental.errors import NoRuns
from avcil.incremental.report.make import render
from avcil.incremental.report.select import benchmarks, gather
from avcil.incremental.runs.results import read_run, write_results

MakeRun = Callable[..., Path]


def test_runs_are_counted_once_where_folders_overlap(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run()
    assert [run.folder for run in gather([tmp_path, folder, tmp_path / "demo"]).runs] == [folder]


def test_an_unfinished_run_is_left_out_by_name(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(seed=0)
    folder = make_run(seed=1)
    results = read_run(folder).results
    for name in ("correct", "validation_accuracy", "seconds"):
        setattr(results, name, getattr(results, name)[:3])
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


@pytest.mark.parametrize(
    "edit",
    [
        {"total": [10, 0]},
        {"total": [10, 10, 10]},
        {"total": [10, "10"]},
        {"correct": [[5], [5, 5.5]]},
        {"correct": [[5], [5, None]]},
        {"tasks": [["a", None], ["c", "d"]]},
        {"validation_accuracy": [None, 0.5]},
        {"validation_accuracy": [0.5]},
        {"seconds": []},
        {"seconds": None},
        {"exemplars": [None, None]},
        {"confusion": [[1, 2]]},
        {"confusion": [[1, 2]] * 4},
        {"leak_free_correct": [[5], [5, 5]], "leak_free_total": [5]},
        {"cache": {"fingerprint": None}},
        {"cache": {"clips": None}},
        {"method": {"title": None, "upper_bound": False, "head": ""}},
        {"method": {"title": "Mine", "upper_bound": 1, "head": ""}},
        {"method": {"name": "mine"}},
        {"method": "mine"},
    ],
    ids=str,
)
def test_results_that_cannot_be_are_left_out_by_name(
    make_run: MakeRun, tmp_path: Path, edit: dict[str, Any]
) -> None:
    make_run(seed=0, tasks=2, total=[10, 10])
    folder = make_run(seed=1, tasks=2, total=[10, 10])
    stored = json.loads((folder / "results.json").read_text())
    cache = stored["cache"] | edit.get("cache", {})
    (folder / "results.json").write_text(json.dumps(stored | edit | {"cache": cache}))
    gathered = gather([tmp_path])
    assert [run.config["seed"] for run in gathered.runs] == [0]
    assert f"{folder} is not a readable run" in gathered.left_out[0]


@pytest.mark.parametrize("seed", [None, "1", 0.5, True])
def test_a_seed_that_is_no_number_is_left_out_by_name(
    make_run: MakeRun, tmp_path: Path, seed: object
) -> None:
    make_run(seed=0)
    folder = make_run(seed=1)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"seed": seed}))
    assert gather([tmp_path]).left_out == [
        f"{folder / 'config.json'}: seed is not a whole number: {seed!r}"
    ]


@pytest.mark.parametrize("form", ["table", "html", "json"])
def test_tasks_whose_test_clips_all_leak_are_reported(
    make_run: MakeRun, tmp_path: Path, form: Any
) -> None:
    for seed, total in enumerate(([0, 5], [5, 0])):
        correct = [[n // 2 for n in total[: k + 1]] for k in range(2)]
        extra = {"leak_free_total": total, "leak_free_correct": correct}
        make_run(seed=seed, tasks=2, total=[10, 10], extra=extra)
    assert "guided" in render(benchmarks(gather([tmp_path]).runs)[0], form).lower()


def test_links_to_run_folders_are_followed_once(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run()
    links = tmp_path / "links"
    links.mkdir()
    (links / "run").symlink_to(folder)
    (links / "loop").symlink_to(links)
    assert [run.folder for run in gather([links]).runs] == [links / "run"]
    assert len(gather([tmp_path]).runs) == 1
