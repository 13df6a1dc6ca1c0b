"""The commands below a table fill its empty cells."""

import dataclasses
import json
import shlex
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from avcil.incremental.options import parse_value
from avcil.incremental.report.make import make_tables
from avcil.incremental.report.select import benchmarks, gather
from avcil.incremental.report.tables.paper import modalities_table
from avcil.incremental.runs.results import CacheIdentity, read_run, write_results

MakeRun = Callable[..., Path]


def test_the_command_for_an_empty_cell_gives_the_whole_protocol(
    make_run: MakeRun, tmp_path: Path, tiny: CacheIdentity
) -> None:
    cache = dataclasses.replace(tiny, dataset="my clips")
    folder = make_run("finetune", cache=cache, tasks=2, order=list("abcdef"))
    results = read_run(folder).results
    results.tasks = [list("abcd"), list("ef")]
    write_results(folder, results)
    (found,) = benchmarks(gather([tmp_path]).runs)[0]
    assert (
        modalities_table(found, [])
        .commands[0]
        .startswith(
            "avcil train --dataset 'my clips' --tasks 2 --first-task 4 --recipe fast --memory 60 "
        )
    )


def test_a_command_has_the_order_the_classes_and_the_most_common_memory(
    make_run: MakeRun, tmp_path: Path
) -> None:
    order = ["b's", "ä", "c", "d"]
    for memory, method in ((20, "lwf"), (30, "finetune"), (30, "slda")):
        make_run(
            method, tasks=2, order=order, memory=memory, class_order=order, classes=order,
            few_shot=2, select="last",
        )  # fmt: skip
    (found,) = benchmarks(gather([tmp_path]).runs)[0]
    command = shlex.split(modalities_table(found, []).commands[0])
    given = dict(pairwise(command))
    assert (given["--memory"], given["--few-shot"], given["--select"]) == ("30", "2", "last")
    sets = [value for option, value in pairwise(command) if option == "--set"]
    names = json.dumps(order, ensure_ascii=False)
    assert sets == [f"class_order={names}", f"classes={names}"]
    assert parse_value(sets[0].partition("=")[2]) == order
    make_run("finetune", tasks=4, order=order, order_seed=7)
    groups = benchmarks(gather([tmp_path]).runs)[0]
    (table,) = [t for t in make_tables(groups, ["tasks"]) if t.commands]
    assert any("--tasks 4 --recipe fast --memory 60 --order-seed 7" in c for c in table.commands)
