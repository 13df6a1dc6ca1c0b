"""LaTeX, CSV and JSON: what other programs read."""

import csv
import dataclasses
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from avcil.incremental.report.formats.latex import escape
from avcil.incremental.report.make import render
from avcil.incremental.report.rows import Benchmark, Summary
from avcil.incremental.report.select import benchmarks, gather
from avcil.incremental.report.tables import TABLES
from avcil.incremental.report.tables.table import figure_cell
from avcil.incremental.runs.matrix import AccuracyMatrix
from avcil.incremental.runs.results import CacheIdentity

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
        old = row.summary(lambda matrix: matrix.old_accuracy)
        assert (line["old_accuracy"], line["old_accuracy_deviation"]) == (
            str(old.mean),
            str(old.deviation or ""),
        )


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


def test_zero_is_printed_without_a_sign() -> None:
    assert figure_cell(Summary(-0.001, None, 1)).text == "0.00"


def test_latex_prints_the_figures_of_the_table(found: list[Benchmark]) -> None:
    text = render(found, "latex", ["overview"])
    for benchmark in found:
        for row in benchmark.rows:
            assert f"{row.accuracy.mean:.2f}" in text
    assert text.count(r"\toprule") == len(found)


def test_latex_keeps_the_commands_for_empty_cells_as_comments(found: list[Benchmark]) -> None:
    text = render(found, "latex", ["modalities"])
    start = "avcil train --dataset demo --tasks 5 --recipe fast --memory 60"
    command = f"{start} --method guided --modality audio --seeds 0,1,2"
    assert f"% to fill an empty cell: {command}\n" in text


def test_latex_names_cannot_become_commands() -> None:
    assert escape(r"a_b & 5 % \x ±") == r"a\_b \& 5 \% \textbackslash{}x $\pm$"


@pytest.mark.slow
@pytest.mark.skipif(
    not shutil.which("pdflatex"), reason="needs pdflatex: texlive-latex-recommended"
)
def test_latex_compiles_as_it_is(found: list[Benchmark], make_run: MakeRun, tmp_path: Path) -> None:
    for name in ("a_strange&name%", "датасет 犬の声 αβ", 'naïve\u2013café Łódź [x] `q\' "z" ß 🐶'):
        make_run(name)
    document = render(benchmarks(gather([tmp_path]).runs)[0], "latex", list(TABLES))
    (tmp_path / "tables.tex").write_text(document, "utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "tables.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert (tmp_path / "tables.pdf").stat().st_size > 10_000


def test_latex_is_ascii_and_says_what_it_transliterated(
    make_run: MakeRun, tmp_path: Path, tiny: CacheIdentity
) -> None:
    name = "датасет 犬の声 naïve\u2013café Łódź ½ 🐶 [x] \u200b"
    make_run(cache=dataclasses.replace(tiny, dataset=name))
    text = render(benchmarks(gather([tmp_path]).runs)[0], "latex", list(TABLES))
    lines = text.splitlines()
    comments = {line for line in lines if line.startswith("%")}
    assert "\n".join(line for line in lines if line not in comments).isascii()
    assert "% dataset is transliterated: датасет" in comments
    caption = next(line for line in lines if r"\caption" in line)
    assert r"dataset QuannoSheng na\"{i}ve--caf\'{e} \L{}\'{o}d\'{z} 1/2 :dog: {[}x{]}" in caption
    assert r"\label{tab:overview-1}" in text


def test_a_line_per_run_has_its_figures_its_versions_and_its_settings(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for seed in range(2):
        make_run(seed=seed, memory=10 + seed)
    make_run("lwf", extra={"resumed": [{"task": 2, "device": "cpu"}]})
    lines = list(
        csv.DictReader(io.StringIO(render(benchmarks(gather([tmp_path]).runs)[0], "runs")))
    )
    runs = {(each.config["seed"], each.config["memory"]): each for each in gather([tmp_path]).runs}
    assert len(lines) == 3
    for line in lines:
        run = runs[int(line["seed"]), int(line["memory"])]
        assert line["folder"] == run.folder.name
        assert float(line["last_accuracy"]) == 100 * run.results.matrix.last_accuracy
        assert line["losses.kd"] == "1.0"
        assert line["avcil"] == "0.1.0"
        assert bool(line["resumed"]) == (line["method.name"] == "lwf")
