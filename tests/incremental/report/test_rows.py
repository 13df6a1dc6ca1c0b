"""Which runs make a row, what it is called, and its statistics."""

import dataclasses
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from avcil.incremental.report.labels import unsaid
from avcil.incremental.report.rows import Benchmark
from avcil.incremental.report.select import benchmarks, gather
from avcil.incremental.report.tables.notes import benchmark_notes
from avcil.incremental.report.tables.table import overview
from avcil.incremental.runs.facts import MethodFacts
from avcil.incremental.runs.results import CacheIdentity, read_run, write_results

MakeRun = Callable[..., Path]


def found(root: Path) -> list[Benchmark]:
    return benchmarks(gather([root]).runs)[0]


def labels(root: Path) -> list[str]:
    return sorted(row.label for benchmark in found(root) for row in benchmark.rows)


def test_runs_that_differ_in_the_seed_are_one_row(make_run: MakeRun, tmp_path: Path) -> None:
    folders = [make_run(seed=seed) for seed in range(3)]
    ((row,),) = [benchmark.rows for benchmark in found(tmp_path)]
    accuracies = [100 * read_run(folder).results.matrix.mean_accuracy for folder in folders]
    assert row.seeds == 3
    assert row.accuracy.mean == pytest.approx(statistics.fmean(accuracies))
    assert row.accuracy.deviation == pytest.approx(statistics.stdev(accuracies))


def test_a_single_run_has_no_deviation(make_run: MakeRun, tmp_path: Path) -> None:
    make_run()
    assert found(tmp_path)[0].rows[0].accuracy.deviation is None


def test_class_orders_are_chance_like_seeds(make_run: MakeRun, tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(10)]
    make_run(order=names)
    make_run(order=names[::-1], order_seed=1)
    (row,) = found(tmp_path)[0].rows
    assert (row.seeds, row.orders, row.accuracy.count) == (1, 2, 2)


def test_any_other_setting_is_another_row_named_by_it(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(memory=20)
    make_run(memory=60)
    make_run("finetune")
    assert labels(tmp_path) == ["finetune", "guided, memory=20", "guided, memory=60"]


def test_a_setting_that_a_run_folder_leaves_out_is_not_named(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run()
    make_run(classify="slda")
    assert labels(tmp_path) == ["guided", "guided, classify=slda"]


def test_modality_and_head_are_named_where_they_are_not_the_usual_ones(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run(modality="audio")
    make_run(head={"name": "concat"})
    assert labels(tmp_path) == ["guided (audio)", "guided (concat head)"]


def test_losses_switched_off_are_named(make_run: MakeRun, tmp_path: Path) -> None:
    make_run()
    make_run(losses={"ce": 1.0, "feature": 0.0, "kd": 1.0})
    assert labels(tmp_path) == ["guided", "guided, without feature"]


def test_runs_on_different_caches_never_share_a_benchmark(
    make_run: MakeRun, tmp_path: Path, tiny: CacheIdentity
) -> None:
    make_run(seed=0)
    make_run(seed=1, cache=dataclasses.replace(tiny, fingerprint="0" * 40))
    make_run(seed=2, cache=dataclasses.replace(tiny, clips=100))
    assert [len(benchmark.rows[0].runs) for benchmark in found(tmp_path)] == [1, 1, 1]


def test_runs_of_different_task_counts_never_share_a_benchmark(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run(tasks=5)
    make_run(tasks=4)
    assert [benchmark.protocol for benchmark in found(tmp_path)] == [
        "4 tasks of 2 classes",
        "5 tasks of 2 classes",
    ]


def test_the_same_run_twice_counts_once_and_is_named(make_run: MakeRun, tmp_path: Path) -> None:
    first, second = make_run(seed=0), make_run(seed=0)
    rows, repeats = benchmarks(gather([tmp_path]).runs)
    assert len(rows[0].rows[0].runs) == 1
    assert repeats == [f"{second} repeats {first}, same settings, seed and order"]


def test_the_usual_value_is_left_out_of_labels_and_said_once(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for settings in ({}, {"memory": 20}, {"batch_size": 64}):
        make_run(**settings)
    assert labels(tmp_path) == ["guided", "guided, batch_size=64", "guided, memory=20"]
    assert unsaid(found(tmp_path)[0].rows) == ["Guided with batch_size=32, memory=60"]


def test_runs_of_different_precisions_are_said(make_run: MakeRun, tmp_path: Path) -> None:
    for seed, precision in enumerate(("fp32", "bf16")):
        folder = make_run(seed=seed)
        results = read_run(folder).results
        results.versions["precision"] = precision
        write_results(folder, results)
    notes = overview(found(tmp_path)[0]).notes
    (note,) = [n for n in notes if n.startswith("Protocol")]
    assert "precision bf16/fp32" in note
    assert "Runs differ in precision: bf16 for Guided (seed 1). fp32 for Guided (seed 0)." in notes


def test_a_run_that_was_resumed_elsewhere_is_said(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(seed=3, extra={"resumed": [{"task": 2, "device": "NVIDIA H100", "torch": "2.9"}]})
    notes = overview(found(tmp_path)[0]).notes
    assert "Guided, seed 3: from task 2 on with device NVIDIA H100, torch 2.9." in notes


def test_an_upper_bound_is_what_its_run_says_and_not_what_it_is_called(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for method, upper_bound in (("jointly", False), ("oracle", True)):
        folder = make_run(method)
        results = read_run(folder).results
        results.method = MethodFacts(title=method.title(), upper_bound=upper_bound)
        write_results(folder, results)
    make_run("joint")  # a folder of 0.1.0
    rows = found(tmp_path)[0].rows
    assert {row.method: row.competes for row in rows} == {
        "jointly": True,
        "oracle": False,
        "joint": False,
    }
    notes = " ".join(benchmark_notes(found(tmp_path)[0]))
    assert "Oracle trains on all clips" in notes
    assert "Joint (upper bound) trains on all clips" in notes
    assert "Jointly trains" not in notes
