"""The paper's tables: published beside re-run, never mixed, and what is missing."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from avcil.incremental.report.make import make_tables
from avcil.incremental.report.select import benchmarks, gather
from avcil.incremental.report.tables.paper import methods_table
from avcil.incremental.report.tables.table import Mark, Table
from avcil.incremental.report.tables.targets import read_targets
from avcil.incremental.runs.results import CacheIdentity, read_run, write_results

MakeRun = Callable[..., Path]
AVE = {"tasks": 4, "total": [104, 106, 105, 79]}


def tables(root: Path, *names: str) -> list[Table]:
    return make_tables(benchmarks(gather([root]).runs)[0], names)


def lines(table: Table) -> dict[str, list[str]]:
    return {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}


def test_published_figures_are_those_of_the_paper() -> None:
    figures = {
        (t.table, t.dataset, t.tasks, t.method, t.head, t.modality, t.without): (
            t.mean_accuracy,
            t.average_forgetting,
        )
        for t in read_targets()
    }
    assert len(figures) == 9 * 2 + 5 + 3 + 9 * 2
    assert figures["methods", "ave", 4, "avcil", "", "av", ()] == (74.04, 7.63)
    assert figures["methods", "vs100", 10, "guided", "", "av", ()] == (79.64, 0.34)
    assert figures["losses", "ave", 4, "guided", "guided", "av", ("kd",)] == (87.79, -1.32)
    assert figures["modalities", "ave", 4, "guided", "", "audio", ()] == (34.21, 11.30)
    assert figures["tasks", "ave", 7, "ssil", "", "av", ()] == (65.29, None)


def test_published_and_rerun_figures_have_columns_of_their_own(
    make_run: MakeRun, tmp_path: Path, sam_audio: CacheIdentity
) -> None:
    make_run(cache=sam_audio, correct=[[104], [104, 106], [104, 106, 105], AVE["total"]], **AVE)
    (table,) = tables(tmp_path, "methods")
    assert [(column.group, column.title) for column in table.columns][1:] == [
        ("published", "acc."),
        ("published", "forg."),
        ("re-run", "acc."),
        ("re-run", "forg."),
        ("", "seeds"),
    ]
    assert lines(table)["Guided (the paper)"] == ["88.72", "2.14", "100.00", "0.00", "1"]


def test_a_method_that_was_not_run_is_an_empty_cell_with_its_command(
    make_run: MakeRun, tmp_path: Path, sam_audio: CacheIdentity
) -> None:
    make_run(cache=sam_audio, **AVE)
    (table,) = tables(tmp_path, "methods")
    assert lines(table)["LwF"] == ["58.07", "26.90", "", "", ""]
    assert table.commands == [
        "avcil train --dataset ave --tasks 4 --recipe fast --memory 340 --method "
        "finetune,lwf,icarl-nme,icarl-fc,ssil,afc-nme,afc-lsc,avcil --seeds 0,1,2"
    ]


def test_other_task_counts_are_not_compared_with_published_figures(
    make_run: MakeRun, tmp_path: Path, sam_audio: CacheIdentity
) -> None:
    make_run(cache=sam_audio, tasks=7)
    (table,) = tables(tmp_path, "methods")
    assert "published" not in {column.group for column in table.columns}


def test_datasets_without_published_figures_have_no_published_columns(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run()
    for table in tables(tmp_path, "methods", "losses", "modalities"):
        assert "published" not in {column.group for column in table.columns}


def test_the_table_of_losses_finds_each_ablation(make_run: MakeRun, tmp_path: Path) -> None:
    make_run()
    make_run(losses={"ce": 1.0, "feature": 0.0, "kd": 1.0})
    make_run(losses={"ce": 1.0, "feature": 0.0, "kd": 1.0}, head={"name": "concat"})
    (table,) = tables(tmp_path, "losses")
    rerun = {tuple(cell.text for cell in row[:4]): row[4].text != "" for row in table.rows}
    assert rerun == {
        ("no", "yes", "yes", "no"): True,
        ("yes", "yes", "no", "no"): False,
        ("yes", "yes", "yes", "no"): True,
        ("yes", "yes", "no", "yes"): False,
        ("yes", "yes", "yes", "yes"): True,
    }
    assert table.commands == [
        "avcil train --dataset demo --tasks 5 --recipe fast --memory 60 "
        "--method guided --set losses.feature=0 --set losses.kd=0 --seeds 0,1,2",
        "avcil train --dataset demo --tasks 5 --recipe fast --memory 60 "
        "--method guided --set losses.kd=0 --seeds 0,1,2",
    ]


def test_the_table_of_modalities_names_the_missing_one(make_run: MakeRun, tmp_path: Path) -> None:
    make_run()
    make_run(modality="audio", head={"name": "audio"})
    (table,) = tables(tmp_path, "modalities")
    assert [name for name, cells in lines(table).items() if cells[0] == ""] == ["video"]
    assert "--method guided --modality visual" in table.commands[0]


def test_several_settings_of_one_line_are_told_apart(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(memory=20)
    make_run(memory=60)
    (table,) = tables(tmp_path, "modalities")
    assert {"both, memory=20", "both, memory=60"} <= set(lines(table))


def test_the_table_of_task_counts_compares_two_protocols_of_one_cache(
    make_run: MakeRun, tmp_path: Path, tiny: CacheIdentity
) -> None:
    names = [f"class {i}" for i in range(10)]
    make_run(order=names, tasks=5)
    make_run(order=names, tasks=2)
    make_run("finetune", order=names, tasks=2)
    (table,) = tables(tmp_path, "tasks")
    assert [column.heading for column in table.columns] == [
        "method",
        "re-run 2 tasks",
        "re-run 5 tasks",
    ]
    assert lines(table)["Fine-tuning"][1] == ""
    assert table.commands == [
        "avcil train --dataset demo --tasks 5 --recipe fast --memory 60 --method finetune "
        "--seeds 0,1,2"
    ]


def test_of_several_settings_the_table_of_task_counts_chooses_on_validation_clips(
    make_run: MakeRun, tmp_path: Path
) -> None:
    worse, better = [[9], [9, 9]], [[10], [10, 10]]
    make_run(tasks=2, total=[10, 10], correct=better, memory=20, validation=[0.1, 0.1])
    make_run(tasks=2, total=[10, 10], correct=worse, memory=60, validation=[0.9, 0.9])
    make_run(tasks=5)
    (table,) = tables(tmp_path, "tasks")
    assert lines(table)["Guided (the paper)"][0] == "90.00"


def test_caches_are_compared_method_by_method(
    make_run: MakeRun, tmp_path: Path, sam_audio: CacheIdentity
) -> None:
    other = dataclasses.replace(sam_audio, encoder="pe-av", fingerprint="b" * 40)
    for cache, right in ((sam_audio, 8), (other, 6)):
        for method, bonus in (("guided", 2), ("finetune", 0)):
            n = right + bonus
            make_run(method, cache=cache, tasks=2, total=[10, 10], correct=[[n], [n, n]])
    make_run("joint", cache=other, tasks=2)
    (table,) = tables(tmp_path, "caches")
    cells = lines(table)
    assert cells["Guided"] == ["80.00", "100.00"]
    assert cells["Fine-tuning"] == ["60.00", "80.00"]
    assert cells["mean of methods on all caches"] == ["70.00", "90.00"]
    assert any("50% is due to the features, 50% to the methods" in n for n in table.notes)


def test_the_best_published_and_the_best_rerun_figure_are_marked_apart(
    make_run: MakeRun, tmp_path: Path, sam_audio: CacheIdentity
) -> None:
    make_run("finetune", cache=sam_audio, **AVE)
    make_run("lwf", cache=sam_audio, **AVE)
    (table,) = tables(tmp_path, "methods")
    best = {i: [row[0].text for row in table.rows if row[i].mark is Mark.BEST] for i in (1, 3)}
    assert best == {1: ["Guided (the paper)"], 3: ["LwF"]}


@pytest.mark.parametrize("name", ["tasks", "caches", "pairs"])
def test_a_comparison_of_one_thing_is_no_table(
    make_run: MakeRun, tmp_path: Path, name: str
) -> None:
    make_run()
    assert tables(tmp_path, name) == []


def test_baselines_on_av_cils_head_are_no_ablation_and_are_told_apart(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run("ssil")
    make_run("ssil", head={"name": "avcil"})
    make_run("ranpac", head={"name": "mean"})
    make_run("guided", head={"name": "avcil"})
    make_run("ssil", head={"name": "concat"})
    (table,) = tables(tmp_path, "methods")
    assert sorted(lines(table)) == ["RanPAC", "SS-IL", "SS-IL (avcil head)"]


def test_other_clips_of_one_cache_never_share_a_table_of_task_counts(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for rows, right in (("a" * 64, 10), ("b" * 64, 5)):
        for tasks in (1, 2):
            correct = [[right] * (k + 1) for k in range(tasks)]
            make_run(tasks=tasks, total=[10] * tasks, correct=correct, rows=rows)
    both = tables(tmp_path, "tasks")
    assert [lines(table)["Guided (the paper)"] for table in both] == [
        ["100.00", "100.00"],
        ["50.00", "50.00"],
    ]
    assert ["clips aaaaaa" in both[0].title, "clips bbbbbb" in both[1].title] == [True, True]


def test_tasks_of_other_sizes_have_columns_of_their_own(make_run: MakeRun, tmp_path: Path) -> None:
    write_sizes(make_run, [["a"], ["b", "c", "d"]], [[10], [10, 10]])
    write_sizes(make_run, [["a", "b"], ["c", "d"]], [[5], [5, 5]])
    (table,) = tables(tmp_path, "tasks")
    assert [column.title for column in table.columns] == [
        "method",
        "2 tasks (1+3)",
        "2 tasks (2x2)",
    ]
    assert lines(table)["Guided (the paper)"] == ["100.00", "50.00"]


def write_sizes(make_run: MakeRun, tasks: list[list[str]], correct: list[list[int]]) -> None:
    folder = make_run(tasks=2, total=[10, 10], correct=correct)
    results = read_run(folder).results
    results.tasks = tasks
    write_results(folder, results)


def test_no_two_columns_of_caches_have_one_heading(
    make_run: MakeRun, tmp_path: Path, tiny: CacheIdentity
) -> None:
    other = dataclasses.replace(tiny, fingerprint="0" * 40)
    make_run(tasks=2, cache=other)
    for rows in ("a" * 64, "b" * 64):
        make_run(tasks=2, rows=rows)
    (table,) = tables(tmp_path, "caches")
    assert [column.title for column in table.columns[1:]] == [
        "tiny 000000",
        "tiny ffffff clips aaaaaa (400)",
        "tiny ffffff clips bbbbbb (400)",
    ]
    assert any("the columns differ in their clips" in note for note in table.notes)


@pytest.mark.parametrize("name", ["overview", "methods", "losses", "modalities", "pairs"])
def test_no_two_tables_have_one_title(make_run: MakeRun, tmp_path: Path, name: str) -> None:
    for rows in ("a" * 64, "b" * 64):
        make_run(rows=rows)
        make_run("lwf", rows=rows)
    titles = [table.title for table in tables(tmp_path, name)]
    assert len(set(titles)) == len(titles) == 2


def test_the_papers_name_is_never_that_of_a_swept_setting(
    make_run: MakeRun, tmp_path: Path, sam_audio: CacheIdentity
) -> None:
    def names(dataset: str, *more: dict[str, object]) -> list[str]:
        cache = dataclasses.replace(sam_audio, dataset=dataset)
        for number, settings in enumerate(more):
            make_run("guided", cache=cache, seed=number, **settings)
        (found,) = (b for b in benchmarks(gather([tmp_path]).runs)[0] if b.cache == cache)
        return sorted(name for name in lines(methods_table(found, [])) if "Guided" in name)

    assert names("own", {}) == ["Guided (the paper)"]
    assert names("two", {}, {"memory": 5}) == ["Guided, memory=5", "Guided, memory=60"]
    # without a rival, the label says nothing of the memory, which is not the benchmark's
    assert names("ave", {"memory": 5}) == ["Guided"]


def test_two_methods_on_every_cache_are_not_said_to_be_missing(
    make_run: MakeRun, tmp_path: Path, tiny: CacheIdentity
) -> None:
    def note() -> str:
        (table,) = tables(tmp_path, "caches")
        return next(n for n in table.notes if "attribut" in n)

    other = dataclasses.replace(tiny, fingerprint="0" * 40)
    counts = {"tasks": 2, "total": [10, 10], "correct": [[5], [5, 5]]}
    for cache in (tiny, other):
        for method in ("guided", "joint"):
            make_run(method, cache=cache, **counts)
    assert "only 1 of the methods was run on every cache (Joint (upper bound) aside)" in note()
    for cache in (tiny, other):
        make_run("lwf", cache=cache, **counts)
    assert note() == "There is no variation to attribute: all figures are the same."
