"""LaTeX, CSV and JSON: what other programs read."""

import csv
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from avcil.incremental.report.formats.latex import escape
from avcil.incremental.report.make import render
from avcil.incremental.report.rows import Benchmark
from avcil.incremental.report.select import benchmarks, gather
from avcil.incremental.report.tables import TABLES
from avcil.incremental.runs.results import AccuracyMatrix, CacheIdentity

MakeRun = Callable[..., Path]


@pytest.fixture
def found(make_run: MakeRun, tmp_path: Path, sam_audio: CacheIdentity) -> list[Benchmark]:
    for seed in range(3):
        for method in ("finetune", "guided", "joint"):
            make_run(method, seed=seed)
    make_run("guided", cache=sam_audio, tasks=4)
    return benchmarks(gather([tmp_path]).runs)[0]


def test_csv_figures_are_those_of_the_runs_to_the_last_bit(found: list[Benchmark]) -> None:
    lines = list(csv.DictReader(io.StringIO(render(found, "csv"))))
    rows = [row for benchmark in found for row in benchmark.rows]
    assert [line["method"] for line in lines] == [row.method for row in rows]
    for line, row in zip(lines, rows, strict=True):
        assert float(line["mean_accuracy"]) == row.accuracy.mean
        assert line["average_forgetting_deviation"] == str(row.forgetting.deviation or "")


def test_json_holds_the_counts_that_every_figure_follows_from(found: list[Benchmark]) -> None:
    stored = json.loads(render(found, "json"))
    assert stored["format"] == 1
    for benchmark, known in zip(stored["benchmarks"], found, strict=True):
        for row, known_row in zip(benchmark["rows"], known.rows, strict=True):
            assert row["mean_accuracy"]["mean"] == known_row.accuracy.mean
            for run, known_run in zip(row["runs"], known_row.runs, strict=True):
                matrix = AccuracyMatrix(run["correct"], run["total"])
                assert 100 * matrix.mean_accuracy == run["mean_accuracy"]
                assert matrix.by_task == known_run.results.matrix.by_task


def test_a_figure_that_is_not_there_is_empty_and_not_nan(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(tasks=1)
    alone = benchmarks(gather([tmp_path]).runs)[0]
    assert json.loads(render(alone, "json"))["benchmarks"][0]["rows"][0]["average_forgetting"] == {
        "mean": None,
        "deviation": None,
    }
    assert "nan" not in render(alone, "csv")
    assert "nan" not in render(alone, "table")


def test_latex_prints_the_figures_of_the_table(found: list[Benchmark]) -> None:
    text = render(found, "latex", ["overview"])
    for benchmark in found:
        for row in benchmark.rows:
            assert f"{row.accuracy.mean:.2f}" in text
    assert text.count(r"\toprule") == len(found)


def test_latex_keeps_the_commands_for_empty_cells_as_comments(found: list[Benchmark]) -> None:
    text = render(found, "latex", ["modalities"])
    command = "avcil train --dataset demo --tasks 5 --method guided --modality audio --seeds 0,1,2"
    assert f"% to fill an empty cell: {command}\n" in text


def test_latex_names_cannot_become_commands() -> None:
    assert escape(r"a_b & 5 % \x ±") == r"a\_b \& 5 \% \textbackslash{}x $\pm$"


@pytest.mark.slow
@pytest.mark.skipif(
    not shutil.which("pdflatex"), reason="needs pdflatex: texlive-latex-recommended"
)
def test_latex_compiles_as_it_is(found: list[Benchmark], make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a_strange&name%")
    document = render(benchmarks(gather([tmp_path]).runs)[0], "latex", list(TABLES))
    (tmp_path / "tables.tex").write_text(document, "utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "tables.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert (tmp_path / "tables.pdf").stat().st_size > 10_000
