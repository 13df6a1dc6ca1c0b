"""`avcil report` as a user meets it."""

import dataclasses
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from avcil.commands.report import report
from avcil.incremental.errors import ConfigError, NoRuns
from avcil.incremental.report.tables import TABLES
from avcil.incremental.runs.results import CacheIdentity

MakeRun = Callable[..., Path]

app = typer.Typer()
app.command()(report)
runner = CliRunner()


def test_all_runs_below_the_runs_folder_are_reported(make_run: MakeRun, tmp_path: Path) -> None:
    make_run()
    result = runner.invoke(app, ["--runs", str(tmp_path)])
    assert result.exit_code == 0
    assert "Guided" in result.stdout


def test_the_runs_folder_comes_from_the_environment(make_run: MakeRun, tmp_path: Path) -> None:
    make_run()
    result = runner.invoke(app, [], env={"AVCIL_RUNS": str(tmp_path)})
    assert "Guided" in result.stdout


def test_what_is_left_out_goes_to_standard_error(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(seed=0)
    damaged = make_run(seed=1)
    (damaged / "results.json").write_text("")
    result = runner.invoke(app, [str(tmp_path)])
    assert result.exit_code == 0
    assert f"left out: {damaged}" in result.stderr.replace("\n", "")
    assert str(damaged) not in result.stdout


def test_the_output_file_holds_the_report(make_run: MakeRun, tmp_path: Path) -> None:
    make_run()
    file = tmp_path / "new" / "report.md"
    result = runner.invoke(app, [str(tmp_path), "--format", "markdown", "--output", str(file)])
    assert result.stdout == ""
    assert "| Guided |" in file.read_text("utf-8")


def test_no_runs_are_an_error_that_says_how_to_make_some(tmp_path: Path) -> None:
    with pytest.raises(NoRuns, match="avcil demo"):
        runner.invoke(app, [str(tmp_path)], catch_exceptions=False)


def test_a_report_imports_no_torch(make_run: MakeRun, tmp_path: Path) -> None:
    make_run()
    code = (
        "import sys; from pathlib import Path;"
        "from avcil.incremental.report.make import make_report;"
        f"make_report([Path({str(tmp_path)!r})]); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_figures_are_written_beside_the_report(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(tasks=2)
    folder = tmp_path / "figures"
    options = ["--figures", str(folder), "--figure-format", "pdf", "--only", "accuracy,losses"]
    result = runner.invoke(app, [str(tmp_path), *options])
    assert result.exit_code == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        f"demo-tiny-ffffff-2tasks-{name}.pdf" for name in ("accuracy", "losses-guided")
    ]


def test_an_unknown_table_lists_the_known_ones(make_run: MakeRun, tmp_path: Path) -> None:
    make_run()
    with pytest.raises(ConfigError, match="unknown table 'x'; choose from all, overview, methods"):
        runner.invoke(app, [str(tmp_path), "--tables", "x"], catch_exceptions=False)


def test_the_help_names_every_table() -> None:
    shown = " ".join(runner.invoke(app, ["--help"], env={"COLUMNS": "400"}).output.split())
    assert f"all, {', '.join(TABLES)}." in shown


@pytest.mark.parametrize(("target", "status"), [("100", 0), ("50", 1)])
def test_the_exit_status_says_whether_targets_hold(
    make_run: MakeRun, tmp_path: Path, target: str, status: int
) -> None:
    make_run(tasks=2, total=[10, 10], correct=[[10], [10, 10]])
    targets = tmp_path / "targets.csv"
    targets.write_text(f"dataset,method,mean_accuracy\ndemo,guided,{target}\n")
    assert runner.invoke(app, [str(tmp_path), "--check", str(targets)]).exit_code == status


def test_the_help_answers_before_anything_heavy_is_imported() -> None:
    code = (
        "import sys; from avcil.commands.report import report;"
        "assert not {'numpy', 'jinja2', 'matplotlib', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_500_runs_are_reported_within_3_seconds_of_processor_time(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for place in range(500):
        make_run("guided", seed=place % 10, memory=place // 10, tasks=10)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = f"from avcil.cli import app; app(['report', {str(tmp_path)!r}])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3
    assert done.stdout.count("±") == 3 * 50 + 1


def test_an_output_that_cannot_be_written_is_named(make_run: MakeRun, tmp_path: Path) -> None:
    make_run()
    with pytest.raises(ConfigError, match=r"cannot be written .*choose another --output"):
        runner.invoke(app, [str(tmp_path), "--output", str(tmp_path)], catch_exceptions=False)


def test_as_many_figures_are_there_as_are_said(
    make_run: MakeRun, tmp_path: Path, tiny: CacheIdentity
) -> None:
    odd = dataclasses.replace(tiny, encoder="a/b c")
    same = dataclasses.replace(tiny, encoder="a b/c")
    for rows in ("a" * 64, "b" * 64):
        make_run(tasks=2, rows=rows)
    make_run(tasks=2, order=[f"class {i}" for i in range(6)], rows="b" * 64)
    make_run(tasks=2, cache=odd)
    make_run(tasks=2, cache=same)
    folder = tmp_path / "figures"
    only = ["--only", "accuracy,losses"]
    result = runner.invoke(app, [str(tmp_path), "--figures", str(folder), *only])
    assert result.exit_code == 0
    written = [path for path in folder.iterdir() if path.suffix == ".svg"]
    assert len(written) == 5 * 2
    assert f"wrote {len(written)} figures" in result.stderr


def test_what_is_left_out_is_said_once_beside_figures(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(tasks=2)
    (make_run(tasks=2) / "results.json").write_text("")
    options = ["--figures", str(tmp_path / "figures"), "--only", "accuracy"]
    result = runner.invoke(app, [str(tmp_path), *options])
    assert result.stderr.count("left out") == 1


def test_a_folder_of_figures_that_is_a_file_is_named(make_run: MakeRun, tmp_path: Path) -> None:
    make_run()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file' cannot be written .*choose another --figures"):
        runner.invoke(
            app, [str(tmp_path), "--figures", str(tmp_path / "file")], catch_exceptions=False
        )


@pytest.mark.parametrize(
    "option", [("--format", "csv"), ("--output", "o"), ("--tables", "all"), ("--figures", "f")]
)
def test_a_check_refuses_options_that_it_would_ignore(
    make_run: MakeRun, tmp_path: Path, option: tuple[str, str]
) -> None:
    make_run()
    result = runner.invoke(app, [str(tmp_path), "--check", "published", *option])
    assert result.exit_code == 2
    assert option[0] in result.stderr


def test_names_of_tables_may_stand_apart(make_run: MakeRun, tmp_path: Path) -> None:
    make_run()
    make_run("lwf")
    result = runner.invoke(app, [str(tmp_path), "--tables", "overview, pairs"])
    assert result.exit_code == 0
    assert "verdict" in result.stdout
