"""Figures as files: which, how wide, under which names, and with names of any script."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from typer.testing import CliRunner

from avcil.cli import app
from avcil.commands import report as command
from avcil.incremental.errors import ConfigError
from avcil.incremental.report.figures import curves, plots, text
from avcil.incremental.report.figures.attention import draw_attention
from avcil.incremental.report.figures.canvas import WIDTHS, Size, drawing, save
from avcil.incremental.report.figures.clock import trained_together
from avcil.incremental.report.figures.matrices import draw_confusion
from avcil.incremental.report.figures.sweeps import sweep_curves
from avcil.incremental.report.figures.write import FIGURES, FigureFiles, row_names, write_figures
from avcil.incremental.report.rows import Benchmark
from avcil.incremental.report.select import benchmarks, gather
from avcil.incremental.report.tables.sweeps import sweeps_table
from avcil.incremental.runs.attention import read_attention
from tests.incremental.report.test_features import write_drift
from tests.incremental.report.test_plots import write_attention

MakeRun = Callable[..., Path]
runner = CliRunner()
ODD = [
    "cash $$ register", "a$ap $_x^", "price in US$", "100 % \\frac{1}{2} \\", "<b>&amp;\"'",
    "a_b^c~#", "two\nlines\tand tab", "\u202eright to left", "e\u0301 and \u00e9", "x" * 300,
    "猫の鳴き声", "🐈 cat", "\ud800 half a pair", "\x00\x1b[31m",
]  # fmt: skip
CONFUSION = [[5 if i == j else 1 for j in range(len(ODD))] for i in range(len(ODD))]


def read(root: Path) -> Benchmark:
    return benchmarks(gather([root]).runs)[0][0]


def svg_text(path: Path) -> str:
    return "".join(ElementTree.parse(path).getroot().itertext())


def test_the_help_names_every_figure() -> None:
    assert command.FIGURES == FIGURES


def test_only_the_figures_asked_for_are_written_and_unknown_ones_are_listed(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run()
    folder = tmp_path / "figures"
    options = [str(tmp_path), "--figures", str(folder)]
    result = runner.invoke(app, ["report", *options, "--only", "forgetting, accuracy"])
    assert result.exit_code == 0
    assert {path.stem.split("-")[-1] for path in folder.iterdir()} == {"accuracy", "forgetting"}
    with pytest.raises(ConfigError, match=r"'bars', 'pies'; choose from accuracy, .*attention"):
        runner.invoke(app, ["report", *options, "--only", "bars,accuracy,pies"],
                      catch_exceptions=False)  # fmt: skip


@pytest.mark.parametrize("option", [("--only", "time"), ("--figure-size", "page"),
                                    ("--figure-format", "pdf")])  # fmt: skip
def test_options_of_figures_need_a_folder(
    make_run: MakeRun, tmp_path: Path, option: tuple[str, str]
) -> None:
    make_run()
    result = runner.invoke(app, ["report", str(tmp_path), *option])
    assert result.exit_code == 2
    assert option[0] in result.stderr


@pytest.mark.parametrize(("size", "inches"), [("column", 3.25), ("page", 6.75)])
def test_files_of_figures_are_exactly_as_wide_as_a_paper_needs(
    make_run: MakeRun, tmp_path: Path, size: Size, inches: float
) -> None:
    make_run()
    files = FigureFiles(folder=tmp_path / "f", size=size, only=("accuracy", "matrices"))
    assert write_figures([read(tmp_path)], files) == 2
    widths = {ElementTree.parse(path).getroot().get("width") for path in (tmp_path / "f").iterdir()}
    assert widths == {f"{72 * inches:g}pt"}


@pytest.mark.parametrize(
    ("size", "length"),
    [
        ("column", 150),
        pytest.param("column", 3, marks=pytest.mark.slow),
        pytest.param("page", 3, marks=pytest.mark.slow),
        pytest.param("page", 150, marks=pytest.mark.slow),
    ],
)
def test_figures_have_their_width_and_nothing_is_cut_at_an_edge(
    make_run: MakeRun, tmp_path: Path, size: Size, length: int
) -> None:
    names = [f"{i}{'class' * length}"[:length] for i in range(10)]
    for seed, method in enumerate(("guided", "guided", "lwf", "m" * length, "猫" * (length // 2))):
        extra = {"confusion": [[1] * 10] * 10}
        folder = make_run(method, order=names, extra=extra, seed=seed, memory=1 + seed // 2)
    make_run("lwf", order=names, memory=9)
    (folder / "attention").mkdir()
    write_attention(folder / "attention" / "a.npz")
    write_drift(folder)
    found = read(tmp_path)
    drawn = [each for kind in FIGURES for each in plots.shared_figures(found, kind)]
    (row,) = (row for row in found.rows if row.method == method)
    drawn += [each for kind in FIGURES for each in plots.row_figures(row, kind)]
    assert {name.split("-")[0] for name, _ in drawn} >= {kind.split("-")[0] for kind in FIGURES} - {
        "memory"
    }
    cut = []
    for name, draw in drawn:
        figure = draw(size)
        assert figure.get_figwidth() == WIDTHS[size]
        with drawing():
            figure.draw_without_rendering()
            held = figure.get_tightbbox()
        right, top = held.x1 - figure.get_figwidth(), held.y1 - figure.get_figheight()
        if max(beyond := (-held.x0, -held.y0, right, top)) > 0.01:
            cut.append(f"{name}: {max(beyond):.2f} in")
    assert not cut


def test_long_names_leave_the_matrix_its_place(tmp_path: Path) -> None:
    figure = draw_confusion(["x" * 200, "y" * 200], [[1, 0], [0, 1]], "z" * 500)
    figure.draw_without_rendering()
    assert figure.axes[0].get_window_extent().width > 0.45 * figure.bbox.width


def test_files_of_rows_carry_no_rank_and_are_never_the_same(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run("lwf", tasks=2, total=[20, 20], correct=[[9], [9, 9]])
    before = row_names(read(tmp_path))
    make_run("a/b", tasks=2, total=[20, 20], correct=[[19], [19, 19]])
    make_run("a b", tasks=2, total=[20, 20], correct=[[20], [20, 20]])
    make_run("A_B", tasks=2, total=[20, 20], correct=[[20], [20, 20]])
    make_run("m" * 150, tasks=2, total=[20, 20])
    make_run("猫" * 70, tasks=2, total=[20, 20])
    after = row_names(read(tmp_path))
    assert set(before) < set(after)
    assert len({name.casefold() for name in after}) == 6
    assert max(len(name.encode()) for name in after) < 100


def test_names_in_figures_are_taken_literally(tmp_path: Path) -> None:
    line = curves.Curve("a$ap $_x^ 100 % \\frac{1}{2}", [1, 2], [1, 2], [0, 0])
    save(plots.draw_curves([line], "price in US$ $", "y"), tmp_path / "a.svg")
    shown = svg_text(tmp_path / "a.svg")
    assert "a$ap $_x^ 100 % \\frac{1}{2}" in shown
    assert "price in US$ $" in shown


def test_a_title_of_a_clip_with_one_dollar_is_literal(tmp_path: Path) -> None:
    path = write_attention(tmp_path / "a.npz")
    with np.load(path) as stored:
        fields = {**dict(stored), "clip": "test/price in US$/0.mp4", "label": "price in US$"}
    np.savez(path, **fields)
    save(draw_attention(read_attention(path)), tmp_path / "a.svg")
    assert "test/price in US$/0.mp4" in svg_text(tmp_path / "a.svg")


@pytest.mark.parametrize("suffix", ["svg", "pdf", "png"])
def test_odd_names_are_drawn_without_a_box_or_a_warning(tmp_path: Path, suffix: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of each box
        save(draw_confusion(ODD, CONFUSION, ODD[10]), tmp_path / f"a.{suffix}")
    if suffix == "svg":
        ElementTree.parse(tmp_path / "a.svg")


def test_a_name_that_no_font_has_stands_as_a_number_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "_font_with", lambda c: text.BASE if ord(c) < 0x2000 else None)
    save(draw_confusion(["dog", "猫"], [[1, 0], [0, 1]], "guided"), tmp_path / "a.svg")
    shown = svg_text(tmp_path / "a.svg")
    assert "class 2" in shown
    assert text.NOT_DRAWN in shown
    assert text.literal("猫") == "U+732B"


def test_class_names_on_an_axis_stay_different() -> None:
    short = text.class_names(["x" * 40 + "1", "x" * 40 + "2", "dog"], 20)
    assert len(set(short)) == 3
    assert max(map(text.columns, short)) <= 20


def test_figures_say_what_bands_are_and_which_way_is_better(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for seed in range(2):
        make_run(seed=seed)
    files = FigureFiles(folder=tmp_path / "f", only=("accuracy", "forgetting"))
    write_figures([read(tmp_path)], files)
    accuracy, forgetting = (svg_text(path) for path in sorted((tmp_path / "f").iterdir()))
    assert "bands: ± one standard deviation" in accuracy
    assert "higher is better" in accuracy
    assert "lower is better" in forgetting


def test_pdf_files_embed_their_fonts_as_truetype(make_run: MakeRun, tmp_path: Path) -> None:
    make_run()
    files = FigureFiles(folder=tmp_path / "f", only=("accuracy",), suffix="pdf")
    write_figures([read(tmp_path)], files)
    (path,) = (tmp_path / "f").iterdir()
    content = path.read_bytes()
    assert b"/FontFile2" in content
    assert b"/Type3" not in content


def test_a_sweep_is_a_curve_over_the_values_of_one_setting(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for memory in (10, 20, 40):
        make_run(memory=memory)
    make_run("lwf", memory=20)
    (setting, (line,)), = sweep_curves(read(tmp_path)).items()  # fmt: skip
    assert (setting, line.label, line.x) == ("memory", "Guided", [10, 20, 40])


def test_accuracy_on_new_and_on_earlier_classes_is_that_of_the_matrix(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run(tasks=3, total=[10, 10, 20], correct=[[9], [5, 8], [3, 3, 10]])
    (point,) = curves.old_new_points(read(tmp_path))
    assert (point.x, point.y) == pytest.approx((100 * (0.5 + 0.3) / 2, 100 * (0.8 + 0.5) / 2))


@pytest.mark.parametrize(("gap", "together"), [(0.0, False), (2.5, True), (100.0, False)])
def test_runs_that_were_trained_at_the_same_time_are_found(
    make_run: MakeRun, tmp_path: Path, gap: float, together: bool
) -> None:
    for number, method in enumerate(("guided", "lwf")):
        folder = make_run(method)
        for task in range(5):
            path = folder / f"task-{task}.safetensors"
            path.touch()
            # 0: a copy, all files of one moment; 2.5: both at once; 100: one after the other
            time = 1e9 + (3 * task + gap * number if gap else 0)
            os.utime(path, (time, time))
    assert trained_together(read(tmp_path).rows) == [together, together]


def test_progress_is_shown_while_figures_are_written(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run()
    write_figures([read(tmp_path)], FigureFiles(folder=tmp_path / "f", only=("accuracy",)))
    assert re.search(r"wrote 1 figures into", capsys.readouterr().err)
    write_figures([read(tmp_path)], FigureFiles(folder=tmp_path / "f", only=("attention",)))
    assert "no run has data for the figures attention" in capsys.readouterr().err


def test_two_settings_that_are_swept_at_once_make_curves_and_a_table_of_each(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for memory in (10, 20):
        for kd in (0.3, 1, 3):
            for seed in (0, 1):
                make_run(memory=memory, seed=seed, losses={"ce": 1.0, "kd": kd})
    found = read(tmp_path)
    drawn = sweep_curves(found)
    assert {name: [line.x for line in lines] for name, lines in drawn.items()} == {
        "losses.kd": [[0.3, 1, 3], [0.3, 1, 3]],
        "memory": [[10, 20], [10, 20], [10, 20]],
    }
    assert [line.label for line in drawn["losses.kd"]] == ["Guided, memory=10", "Guided, memory=20"]
    table = sweeps_table(found)
    assert table is not None
    assert len(table.rows) == 2 * 3 + 3 * 2
    assert [cell.text for cell in table.rows[0][:3]] == ["Guided, memory=10", "losses.kd", "0.3"]
