"""The same figures in every format."""

import csv
import dataclasses
import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from avcil.incremental.report.formats.text import terminal
from avcil.incremental.report.make import Format, render
from avcil.incremental.report.rows import Benchmark
from avcil.incremental.report.select import benchmarks, gather
from avcil.incremental.report.tables.table import Cell, Column, Mark, Table, mark_best
from avcil.incremental.runs.results import CacheIdentity

MakeRun = Callable[..., Path]

METHODS = ("finetune", "guided", "joint")


@pytest.fixture
def found(make_run: MakeRun, tmp_path: Path) -> list[Benchmark]:
    for method in METHODS:
        for seed in range(3):
            make_run(method, seed=seed)
    return benchmarks(gather([tmp_path]).runs)[0]


def figures(text: str) -> list[str]:
    return re.findall(r"-?\d+\.\d\d ± \d+\.\d\d", text)


def test_terminal_and_markdown_print_the_same_figures(found: list[Benchmark]) -> None:
    expected = [
        f"{figure.mean:.2f} ± {figure.deviation:.2f}"
        for row in found[0].rows
        for figure in (row.accuracy, row.forgetting, row.last)
    ]
    assert figures(render(found, "table")) == expected
    assert figures(render(found, "markdown")) == expected


def test_csv_figures_are_those_of_the_runs_to_the_last_bit(found: list[Benchmark]) -> None:
    lines = list(csv.DictReader(io.StringIO(render(found, "csv"))))
    assert [line["method"] for line in lines] == [row.method for row in found[0].rows]
    for line, row in zip(lines, found[0].rows, strict=True):
        assert float(line["mean_accuracy"]) == row.accuracy.mean
        assert float(line["average_forgetting_deviation"]) == row.forgetting.deviation


def test_the_terminal_table_fits_80_columns(found: list[Benchmark]) -> None:
    assert max(map(len, render(found, "table").splitlines())) <= 80


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_random_encoder_weights_are_said_in_the_title(found: list[Benchmark], form: Format) -> None:
    title, *_ = (line for line in render(found, form).splitlines() if line.strip())
    assert "RANDOM WEIGHTS" in title


def test_trained_encoder_weights_raise_no_alarm(
    make_run: MakeRun, tmp_path: Path, sam_audio: CacheIdentity
) -> None:
    make_run(cache=sam_audio)
    text = render(benchmarks(gather([tmp_path]).runs)[0], "table")
    assert "sam-audio" in text
    assert "random" not in text.lower()


def test_markdown_names_cannot_break_the_table(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a|b")
    assert r"| a\|b |" in render(benchmarks(gather([tmp_path]).runs)[0], "markdown")


def test_the_upper_bound_is_never_marked_best(found: list[Benchmark]) -> None:
    lines = render(found, "markdown").splitlines()
    assert "**" not in next(line for line in lines if line.startswith("| Joint"))
    assert "**" in next(line for line in lines if line.startswith("| Guided"))


def test_figures_that_print_the_same_share_the_rank() -> None:
    rows = [[Cell("", 50.001)], [Cell("", 49.999)], [Cell("", 40.0)], [Cell("", 30.0)]]
    mark_best([Column("accuracy", best=max)], rows, [True] * 4)
    marks = [row[0].mark for row in rows]
    assert marks == [Mark.BEST, Mark.BEST, Mark.SECOND, Mark.NONE]


def test_a_benchmark_that_leaks_says_so(
    make_run: MakeRun, tmp_path: Path, sam_audio: CacheIdentity
) -> None:
    leaking = dataclasses.replace(sam_audio, dataset="vs100")
    extra = {"leak_free_total": [5, 5], "leak_free_correct": [[5], [5, 4]]}
    make_run(cache=leaking, tasks=2, total=[10, 10], correct=[[5], [5, 5]], extra=extra)
    text = render(benchmarks(gather([tmp_path]).runs)[0], "markdown")
    assert "1,627 of the 5,000" in text
    assert "| Guided | 50.00 | 0.00 | 50.00 | 1 | 95.00 |" in text


def test_a_terminal_gets_bold_type_and_its_own_width(found: list[Benchmark]) -> None:
    text = render(found, "table", screen=120)
    assert "\x1b[1m" in text
    assert max(len(line) for line in text.splitlines()) > 80


def test_a_figure_without_a_rival_is_not_the_best() -> None:
    rows = [[Cell("", 50.0)], [Cell("")]]
    mark_best([Column("accuracy", best=max)], rows, [True, True])
    assert [row[0].mark for row in rows] == [Mark.NONE, Mark.NONE]


def wide_table() -> Table:
    columns = [Column("method", figure=False), *(Column(f"figure {i}") for i in range(14))]
    return Table("wide", "Wide", columns, [[Cell("guided"), *[Cell("50.00 ± 10.00")] * 14]])


def test_a_table_wider_than_the_terminal_is_split_and_every_part_names_its_rows() -> None:
    shown = terminal([wide_table()], 80)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert max(map(len, plain.splitlines())) <= 80
    assert [f"figure {i}" in plain for i in range(14)] == [True] * 14
    assert plain.count("50.00 ± 10.00") == 14
    assert plain.count("guided") == plain.count("method") == 4


def test_a_table_in_a_file_has_no_width() -> None:
    lines = [line for line in terminal([wide_table()]).splitlines() if "guided" in line]
    assert [line.count("50.00 ± 10.00") for line in lines] == [14]
