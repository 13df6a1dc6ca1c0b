"""Paired comparison and the split of variation."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from avcil.incremental.report.select import benchmarks, gather
from avcil.incremental.report.tables.compare import pairs_table
from avcil.incremental.report.tables.statistics import paired_difference, variance_shares

MakeRun = Callable[..., Path]


def verdicts(root: Path) -> dict[str, list[str]]:
    table = pairs_table(benchmarks(gather([root]).runs)[0][0])
    assert table is not None
    return {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}


def test_the_same_differences_give_the_same_interval() -> None:
    differences = [1.0, 2.0, 4.0, 3.0, 2.0, 5.0]
    assert paired_difference(differences) == paired_difference(differences)


def test_the_interval_holds_the_mean_and_lies_within_the_data() -> None:
    found = paired_difference([1.0, 2.0, 4.0, 3.0, 2.0, 5.0])
    assert 1.0 <= found.low < found.mean < found.high <= 5.0


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    chance = random.Random(0)
    samples = [paired_difference([chance.gauss(0, 1) for _ in range(20)]) for _ in range(100)]
    covered = sum(found.low <= 0 <= found.high for found in samples)
    assert covered / 100 == pytest.approx(0.95, abs=0.06)


def test_few_pairs_decide_nothing_however_clear() -> None:
    assert not paired_difference([10.0] * 5).decided
    assert paired_difference([10.0] * 6).decided


def test_an_interval_with_zero_decides_nothing() -> None:
    assert not paired_difference([-1.0, 1.0] * 5).decided


def test_variation_between_columns_is_the_features() -> None:
    shares = variance_shares([[10, 20], [10, 20], [10, 20]])
    assert shares is not None
    assert (shares.features, shares.methods, shares.interplay) == pytest.approx((1, 0, 0))


def test_shares_of_variation_add_up() -> None:
    shares = variance_shares([[10, 25], [14, 18], [11, 30]])
    assert shares is not None
    assert shares.features + shares.methods + shares.interplay == pytest.approx(1)
    assert shares.interplay > 0


def test_figures_that_are_all_the_same_have_no_shares() -> None:
    assert variance_shares([[10, 10], [10, 10]]) is None


def test_three_seeds_are_said_to_be_too_few(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(3):
        make_run("guided", seed=seed)
        make_run("finetune", seed=seed)
    cells = verdicts(tmp_path)["Fine-tuning"]
    assert cells[3:] == ["3", "too few pairs"]


def test_six_seeds_tell_a_clear_difference(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in range(6):
        make_run("guided", seed=seed)
        make_run("finetune", seed=seed)
    assert verdicts(tmp_path)["Fine-tuning"][4] == "better"


def test_only_runs_of_the_same_seed_and_order_are_paired(make_run: MakeRun, tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(10)]
    make_run("guided", seed=0, order=names)
    make_run("guided", seed=1, order=names)
    make_run("finetune", seed=0, order=names)
    make_run("finetune", seed=1, order=names[::-1])
    assert verdicts(tmp_path)["Fine-tuning"][1] == "-"  # no interval over a single pair
    assert verdicts(tmp_path)["Fine-tuning"][3] == "1"


def test_rows_without_a_shared_seed_are_not_compared(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("guided", seed=0)
    make_run("finetune", seed=1)
    assert verdicts(tmp_path)["Fine-tuning"] == ["-", "-", "-", "0", "no pair to compare"]
