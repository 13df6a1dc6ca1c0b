"""`avcil report` as a user meets it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from avcil.commands.report import report
from avcil.incremental.errors import NoRuns

MakeRun = Callable[..., Path]

app = typer.Typer()
app.command()(report)
runner = CliRunner()


def test_all_runs_below_the_runs_folder_are_reported(make_run: MakeRun, tmp_path: Path) -> None:
    make_run()
    result = runner.invoke(app, ["--runs", str(tmp_path)])
    assert result.exit_code == 0
    assert "guided" in result.stdout


def test_the_runs_folder_comes_from_the_environment(make_run: MakeRun, tmp_path: Path) -> None:
    make_run()
    result = runner.invoke(app, [], env={"AVCIL_RUNS": str(tmp_path)})
    assert "guided" in result.stdout


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
    assert "| guided |" in file.read_text("utf-8")


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
