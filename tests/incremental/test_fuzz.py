"""Random small data sets with random names: trained, resumed and reported in every format."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from avcil.cache.schema import SPLITS, Manifest
from avcil.cli import app
from avcil.errors import AvcilError
from avcil.incremental.contract.toy import write_toy_cache
from avcil.incremental.methods import METHODS
from avcil.incremental.report.figures.write import FIGURES, FigureFiles, write_figures
from avcil.incremental.report.make import Format, render
from avcil.incremental.report.rows import Benchmark
from avcil.incremental.report.select import benchmarks, gather
from avcil.incremental.report.tables import TABLES

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
DATASETS = NAMES.filter(
    lambda n: (
        n.isprintable() and "/" not in n and n not in ("", ".", "..") and len(n.encode()) < 250
    )
)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Draw the clips of 1 to 30 classes, 1 to 5 of each class and split."""
    few = draw(st.booleans())  # most faults of small sets show with a few classes
    names = draw(st.lists(NAMES, min_size=1, max_size=4 if few else 30, unique=True))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    clips = [
        (split, label, f"{split}/{label} {name}/{number}".replace("\0", ""))
        for split in SPLITS
        for label, name in enumerate(names)
        for number in range(rng.integers(1, 6))
    ]
    return Manifest.of(draw(DATASETS), tuple(names), clips)


@st.composite
def options(draw: st.DrawFn, manifest: Manifest, folder: Path) -> list[str]:
    """Draw options of `avcil train` that fit the clips."""
    classes = list(manifest.classes)
    words = [
        "--method",
        ",".join(draw(st.sets(st.sampled_from(list(METHODS)), min_size=1, max_size=2))),
    ]
    if len(classes) > 1 and draw(st.booleans()) and _can_be_lines(classes):
        classes = draw(st.lists(st.sampled_from(classes), min_size=1, unique=True))
        (folder / "classes.txt").write_text("\n".join(classes), "utf-8")
        words += ["--classes", str(folder / "classes.txt")]
    tasks = draw(st.integers(1, len(classes)))
    words += ["--tasks", str(tasks)]
    if tasks > 1 and draw(st.booleans()):
        words += ["--first-task", str(draw(st.integers(1, len(classes) - tasks + 1)))]
    for name, values in (
        ("--memory", st.integers(len(classes), 200)),
        ("--few-shot", st.integers(1, 5)),
        ("--order-seed", st.integers(0, 9)),
        ("--select", st.sampled_from(["best", "last"])),
        ("--recipe", st.sampled_from(["fast", "paper", "avcil"])),
        (
            "--set",
            st.sampled_from(["batch_size=1000", "memory_per_class=true", "validate_every=3"]),
        ),
    ):
        if draw(st.booleans()):
            words += [name, str(draw(values))]
    return [*words, "--seeds", draw(st.sampled_from(["0", "0,7"]))]


def _can_be_lines(names: list[str]) -> bool:
    """Tell whether a file with a name on each line holds these names."""
    return all(name == name.strip() and len(name.splitlines()) == 1 for name in names) and not any(
        "\ufeff" in name for name in names
    )


def run(*words: str) -> Result:
    result = CliRunner().invoke(app, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit | AvcilError):
        raise result.exception
    return result


EXAMPLES = int(os.environ.get("AVCIL_FUZZ_EXAMPLES", "25"))
"""Always the same ones; set it to 200 for a thorough search, which takes many minutes."""


@pytest.mark.slow
@pytest.mark.timeout(1200)
@settings(
    max_examples=EXAMPLES, derandomize=True, deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # shrinking a failure would take longer than the examples
)  # fmt: skip
@given(data=st.data())
def test_any_small_set_is_trained_resumed_and_reported_without_a_missing_row(
    data: st.DataObject,
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = data.draw(manifests())
        write_toy_cache(folder / "c.zarr", manifest)
        words = data.draw(options(manifest, folder))
        runs = folder / "runs"
        where = ["--cache", str(folder / "c.zarr"), "--runs", str(runs), "--parallel", "1"]
        train = ["train", *words, *where, "--epochs", "1"]
        train += ["--set", "head.width=16"]
        done = run(*train)
        assert done.exit_code == 0, (done.exception, done.output)
        folders = list(map(Path, done.stdout.splitlines()))
        cut = data.draw(st.sampled_from(folders))
        whole = json.loads((cut / "results.json").read_text("utf-8"))
        forget_tasks(cut, whole, data.draw(st.integers(0, len(whole["tasks"]) - 1)))
        assert run(*train).exit_code == 0
        again = json.loads((cut / "results.json").read_text("utf-8"))
        assert [again[key] for key in ("correct", "exemplars")] == [
            whole[key] for key in ("correct", "exemplars")
        ]
        found, methods = check_reports(runs, len(folders)), len(words[1].split(","))
        assert [len(each.rows) for each in found] == [methods]
        if data.draw(st.booleans()):  # either takes longer than all else
            assert render(found, "html").count("data-opens=") == methods
        else:
            kind = data.draw(st.sampled_from(FIGURES))
            write_figures(found, FigureFiles(folder=folder / "figures", only=(kind,)))


def forget_tasks(folder: Path, results: dict[str, Any], kept: int) -> None:
    """Leave a run as if it had been killed after some tasks."""
    lists = (
        "correct",
        "validation_accuracy",
        "best_epochs",
        "exemplars",
        "seconds",
        "leak_free_correct",
    )
    shorter = {name: value[:kept] for name, value in results.items() if name in lists}
    text = json.dumps({**results, **shorter, "confusion": []})
    (folder / "results.json").write_text(text, "utf-8")


def check_reports(runs: Path, count: int) -> list[Benchmark]:
    """Render all forms but the page, and return what they show."""
    gathered = gather([runs])
    assert not gathered.left_out
    found, repeats = benchmarks(gathered.runs)
    assert not repeats
    methods = len(found[0].rows)
    forms: dict[Format, int] = {"csv": methods, "runs": count}
    for form, lines in forms.items():
        assert len(list(csv.DictReader(io.StringIO(render(found, form))))) == lines
    assert render(found, "markdown").count("\n| ") == 2 + methods
    for form in ("table", "latex", "markdown"):
        render(found, form, list(TABLES), 80 if form == "table" else None)
    assert len(json.loads(render(found, "json"))["benchmarks"][0]["rows"]) == methods
    assert run("report", str(runs)).exit_code == 0
    return found
