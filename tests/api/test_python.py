"""The functions of `import avcil`."""

from __future__ import annotations

import builtins
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import avcil
from avcil.api.runs import Runs
from avcil.extract.errors import DatasetError
from avcil.runtime import progress

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def test_import_avcil_imports_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import typing, avcil; dir(avcil);"
        "print(sorted(m for m in set(sys.modules) - before if 'avcil' in m or 'numpy' in m))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "['avcil']"


def test_the_package_extract_is_also_the_function(tmp_path: Path) -> None:
    assert isinstance(sys.modules["avcil.extract"], type(sys))
    assert pickle.loads(pickle.dumps(avcil.extract)) is avcil.extract
    with pytest.raises(DatasetError, match="no folder of clips at"):
        avcil.extract("folder", videos=tmp_path / "none", encoder="tiny")


def test_every_name_is_there_and_no_other() -> None:
    for name in ("extract", "train", "report", "predict", "load_run"):
        assert callable(getattr(avcil, name))
        assert name in dir(avcil)
    with pytest.raises(AttributeError, match="has no attribute 'learn'"):
        avcil.learn  # type: ignore[attr-defined]  # noqa: B018


def test_a_run_is_tables(runs: Runs) -> None:
    run = avcil.load_run(runs[0].folder)
    results = run.results
    assert run.config["method"]["name"] == "guided"
    assert run.matrix.index.tolist() == run.matrix.columns.tolist() == [1, 2]
    assert run.matrix.loc[2, 1] == results.correct[1][0] / results.total[0]
    assert np.isnan(run.matrix.loc[1, 2])
    assert run.metrics["mean_accuracy"] == results.matrix.mean_accuracy
    assert run.epochs[["task", "epoch"]].to_numpy().tolist() == [
        [task, epoch] for task in range(2) for epoch in range(3)
    ]
    assert run.epochs["loss.ce"].notna().all()
    assert run.confusion.to_numpy().sum() == sum(results.total)


def test_runs_are_a_sequence_and_a_table(runs: Runs) -> None:
    table = runs[:2].table()
    assert table["method"].tolist() == ["guided", "icarl-nme"]
    assert table.index.tolist() == [run.folder.name for run in runs[:2]]
    assert "<table" in runs._repr_html_()


def test_a_report_takes_runs_and_folders(runs: Runs, tmp_path: Path) -> None:
    text = avcil.report(runs[:2], format="csv", output=tmp_path / "report.csv")
    assert text == (tmp_path / "report.csv").read_text()
    assert "icarl-nme" in text
    assert avcil.report([run.folder for run in runs[:2]], format="csv") == text


class ZMQInteractiveShell:
    """The class by which rich recognizes a notebook."""


@pytest.mark.parametrize("widgets", [False, True])
def test_a_notebook_has_one_bar_if_it_can_redraw_it(
    widgets: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a line every ten seconds: without ipywidgets, rich would show nothing."""
    if widgets:
        (tmp_path / "ipywidgets.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    progress.console.cache_clear()
    try:
        assert progress.redraws() is widgets
    finally:
        progress.console.cache_clear()


@pytest.mark.slow
def test_a_script_needs_no_main_guard(features: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import avcil\n"
        "print('once')\n"
        f"runs = avcil.train({str(features)!r}, seeds=[0, 1], tasks=2, epochs=1, parallel=2,\n"
        "                   settings={'head.width': 8}, runs='runs')\n"
        "print(len(runs), all(run.results.complete for run in runs))\n"
    )
    shown = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert shown.stdout.splitlines() == ["once", "2 True"], shown.stderr


@pytest.mark.slow
def test_the_examples_run(
    videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(videos, tmp_path / "my-clips")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    exec(compile("\n".join(blocks), str(PAGE), "exec"), {})
    assert "finetune" in capsys.readouterr().out
    assert (tmp_path / "report.html").exists()
