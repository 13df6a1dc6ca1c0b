"""The commands that fill the empty cells of a table."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence

from avcil.incremental.report.labels import setting
from avcil.incremental.report.rows import Benchmark

SEEDS = "--seeds 0,1,2"
OPTIONS = {
    "recipe": "--recipe", "memory": "--memory", "few_shot": "--few-shot", "select": "--select",
}  # fmt: skip
"""Settings that runs of one table should share, and their options."""
OF_ORDER = ("order_seed", "class_order", "classes")


def fill(found: Benchmark, missing: Iterable[str]) -> list[str]:
    """Return what to run for lines without runs; plain methods share one command.

    Args:
        found: the runs to compare with; the commands have their tasks and usual settings.
        missing: options of `avcil train` that each line asks for.
    """
    missing = list(dict.fromkeys(missing))
    plain = [options for options in missing if options.count(" ") == 1]
    if len(plain) > 1:
        joined = ",".join(options.removeprefix("--method ") for options in plain)
        missing = [f"--method {joined}", *(each for each in missing if each not in plain)]
    start = _command(found, len(found.sizes), _first_task(found.sizes))
    return [f"{start} {options} {SEEDS}" for options in missing]


def fill_tasks(like: Benchmark, tasks: int, methods: Sequence[str]) -> str:
    """Return what to run for methods in another number of tasks than `like`, all else the same."""
    return f"{_command(like, tasks)} --method {','.join(methods)} {SEEDS}"


def _command(found: Benchmark, tasks: int, first_task: str = "") -> str:
    start = f"avcil train --dataset {shlex.quote(found.cache.dataset)} --tasks {tasks}{first_task}"
    return start + _settings(found) + _order(found)


def _first_task(sizes: Sequence[int]) -> str:
    """Return the option for a first task of its own size, after a blank."""
    return f" --first-task {sizes[0]}" if sizes[0] != sum(sizes) // len(sizes) else ""


def _settings(found: Benchmark) -> str:
    """Return the options for the most common settings of the rows; of the best where they tie."""
    options = ""
    for name, option in OPTIONS.items():
        values = Counter(json.dumps(setting(row.settings, name)) for row in found.rows)
        value = json.loads(values.most_common(1)[0][0]) if values else None
        if value is not None and (name, value) != ("select", "best"):
            options += f" {option} {shlex.quote(str(value))}"
            if name == "memory" and all(row.settings.get("memory_per_class") for row in found.rows):
                options += " --set memory_per_class=true"
    return options


def _order(found: Benchmark) -> str:
    """Return the options for the most common order of the classes, and for the classes learned."""
    configs = [run.config for row in found.rows for run in row.runs]
    orders = Counter(json.dumps([config.get(name) for name in OF_ORDER]) for config in configs)
    seed, order, classes = json.loads(orders.most_common(1)[0][0])
    options = "" if seed is None else f" --order-seed {seed}"
    for name, names in (("class_order", order), ("classes", classes)):
        if names is not None:
            given = f"{name}={json.dumps(names, ensure_ascii=False)}"
            options += f" --set {shlex.quote(given)}"
    return options
