"""`--check`: re-run figures against targets."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from avcil.incremental.errors import ConfigError
from avcil.incremental.report.formats.export import comma_separated
from avcil.incremental.report.make import check_report
from avcil.incremental.report.select import benchmarks, gather
from avcil.incremental.report.tables.check import check_all
from avcil.incremental.report.tables.targets import read_targets
from avcil.incremental.runs.results import CacheIdentity

MakeRun = Callable[..., Path]
GOLDEN = {"tasks": 4, "total": [104, 106, 105, 79]}
AV_CIL = [[83], [75, 87], [66, 85, 74], [62, 84, 79, 42]]


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_golden_run_holds_against_the_published_row(
    make_run: MakeRun, tmp_path: Path, sam_audio: CacheIdentity
) -> None:
    make_run("avcil", cache=sam_audio, correct=AV_CIL, head={"name": "avcil"}, **GOLDEN)
    checks = check_all(read_targets(), benchmarks(gather([tmp_path]).runs)[0], 0.005)
    assert [c.target.method for c in checks if c.holds] == ["avcil"]


def test_all_targets_must_hold(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(tasks=2, total=[10, 10], correct=[[8], [8, 8]])
    header = "dataset,method,mean_accuracy,average_forgetting"
    near = write(tmp_path / "near.csv", header, "demo,guided,80.4,-0.4")
    far = write(tmp_path / "far.csv", header, "demo,guided,80.4,-0.4", "demo,guided,82.0,")
    assert check_report([tmp_path], str(near), 0.5)
    assert not check_report([tmp_path], str(far), 0.5)


def test_a_target_that_nobody_ran_does_not_hold(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run()
    targets = write(tmp_path / "t.csv", "dataset,method,mean_accuracy", "demo,lwf,50")
    assert not check_report([tmp_path], str(targets), 100)
    assert "not run" in capsys.readouterr().out


def test_a_report_is_a_file_of_targets_that_itself_meets(make_run: MakeRun, tmp_path: Path) -> None:
    for settings in ({}, {"memory": 20}, {"losses": {"ce": 1.0, "feature": 0.0, "kd": 1.0}}):
        make_run(**settings)
    targets = tmp_path / "targets.csv"
    targets.write_text(comma_separated(benchmarks(gather([tmp_path]).runs)[0]))
    assert check_report([tmp_path], str(targets), 0.0)


def test_targets_on_other_datasets_are_passed_over(make_run: MakeRun, tmp_path: Path) -> None:
    make_run()
    with pytest.raises(ConfigError, match="no target in 'published' is about demo"):
        check_report([tmp_path], "published", 1.0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["dataset,method", "demo,guided"], "has no column 'mean_accuracy'"),
        (["dataset,method,mean_accuracy", "demo,guided,"], "line 2: mean_accuracy is empty"),
        (["dataset,method,mean_accuracy", "demo,guided,x"], "mean_accuracy is not a number: 'x'"),
    ],
)
def test_targets_that_cannot_be_read_are_named(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_targets(write(tmp_path / "t.csv", *lines))


def test_a_missing_file_of_targets_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'.*nowhere.csv' cannot be read.*'published' stands"):
        read_targets(tmp_path / "nowhere.csv")


def write_targets(root: Path) -> Path:
    """Write the report of all runs as a file of targets."""
    targets = root / "targets.csv"
    targets.write_text(comma_separated(benchmarks(gather([root]).runs)[0]))
    return targets


def test_targets_still_hold_when_other_runs_change_the_labels(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run()
    targets = write_targets(tmp_path)
    make_run(memory=20, total=[10] * 5, correct=[[1] * (k + 1) for k in range(5)])
    assert check_report([tmp_path], str(targets), 0.0)


def test_reports_of_two_lists_of_clips_are_targets_that_both_meet(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for rows, right in (("a" * 64, 10), ("b" * 64, 5)):
        make_run(tasks=2, total=[10, 10], correct=[[right], [right, right]], rows=rows)
    assert check_report([tmp_path], str(write_targets(tmp_path)), 0.0)


def check_lines(root: Path, *lines: str) -> list[tuple[str, bool]]:
    header = "dataset,method,mean_accuracy,average_forgetting,encoder,label"
    targets = read_targets(write(root / "t.csv", header, *lines))
    checks = check_all(targets, benchmarks(gather([root]).runs)[0], 0.5)
    return [(check.row.label if check.row else "", check.holds) for check in checks]


def test_a_label_chooses_among_rows_and_an_unknown_one_asks_for_all(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for memory, right in ((20, 5), (60, 10)):
        make_run(memory=memory, tasks=2, total=[10, 10], correct=[[right], [right, right]])
    known = check_lines(tmp_path, 'demo,guided,50,,,"guided, memory=20"')
    assert known == [("guided, memory=20", True)]
    unknown = check_lines(tmp_path, "demo,guided,50,,,guided")
    assert unknown == [("guided, memory=60", False), ("guided, memory=20", True)]


def test_targets_that_differ_in_encoder_or_forgetting_are_all_compared(
    make_run: MakeRun, tmp_path: Path, tiny: CacheIdentity
) -> None:
    make_run(tasks=2, total=[10, 10], correct=[[8], [8, 8]])
    other = dataclasses.replace(tiny, encoder="other", fingerprint="0" * 40)
    make_run(tasks=2, total=[10, 10], correct=[[8], [8, 8]], cache=other)
    lines = ["demo,guided,80,0,tiny,", "demo,guided,80,0,other,", "demo,guided,80,9,tiny,"]
    assert [holds for _, holds in check_lines(tmp_path, *lines)] == [True, False, True]
    again = ["demo,guided,80,,tiny,", "demo,guided,80,0,tiny,", "demo,guided,80,0,tiny,"]
    assert [holds for _, holds in check_lines(tmp_path, *again)] == [True]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_targets_are_read_after_a_spreadsheet_saved_them(
    make_run: MakeRun, tmp_path: Path, encoding: str
) -> None:
    make_run()
    targets = write_targets(tmp_path)
    targets.write_text(targets.read_text(), encoding)
    assert check_report([tmp_path], str(targets), 0.0)


@pytest.mark.parametrize("tolerance", [float("nan"), float("inf")])
def test_a_tolerance_that_is_not_finite_is_refused(tmp_path: Path, tolerance: float) -> None:
    with pytest.raises(ConfigError, match="--tolerance takes percentage points"):
        check_report([tmp_path], "published", tolerance)


@pytest.mark.parametrize("other", [{"memory": 20}, {"recipe": "paper"}, {"first_task": 4}])
def test_a_target_of_other_settings_was_not_run(
    make_run: MakeRun, tmp_path: Path, other: dict[str, object]
) -> None:
    folder = make_run(**other)
    targets = read_targets(write_targets(tmp_path))
    shutil.rmtree(folder)
    make_run()
    checks = check_all(targets, benchmarks(gather([tmp_path]).runs)[0], 100.0)
    assert [(check.row, check.holds) for check in checks] == [(None, False)]
