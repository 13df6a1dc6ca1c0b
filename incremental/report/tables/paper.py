"""The paper's four tables, with published figures and re-run ones in columns of their own.

Source: arXiv 2606.10887, tables 1 to 4.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avcil.incremental.config.recipes import read_recipe
from avcil.incremental.options import DEFAULT_HEAD
from avcil.incremental.report.labels import details, named
from avcil.incremental.report.rows import Benchmark, Row, spell_sizes
from avcil.incremental.report.tables.table import (
    NOTHING,
    Cell,
    Column,
    OfEach,
    OfGroups,
    Table,
    benchmark_notes,
    count_cell,
    figure_cell,
    mark_best,
    name_benchmark,
    name_clips,
)
from avcil.incremental.report.tables.targets import Target, published
from avcil.incremental.runs.facts import OF_0_1_0, facts_without_a_run

PUBLISHED, RERUN = "published", "re-run"
SEEDS = "--seeds 0,1,2"
NAMES_OF_MODALITIES = {"audio": "audio", "visual": "video", "av": "both"}
ORIGIN = (
    "Published baselines were trained on AudioMAE and VideoMAE features with one seed, the paper's "
    "own method on SAM-Audio features; re-run figures share one cache."
)
CHOICE = "Of several rows of one method, the table shows the one best on validation clips."


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a table: what was published, what was re-run, what to run."""

    names: Sequence[str]
    target: Target | None
    row: Row | None
    options: str
    """Of `avcil train`, to run what the line asks for."""

    @property
    def competes(self) -> bool:
        """False for an upper bound."""
        return self.row is None or self.row.competes


def methods_table(found: Benchmark, targets: Sequence[Target]) -> Table:
    """Return table 1: all methods with both modalities and all their losses."""
    known = [t for t in published(found.cache.dataset, "methods", targets) if _fits(t, found)]
    plain = [row for row in found.rows if not row.ablated]
    order = list(dict.fromkeys([*(t.method for t in known), *_in_order(plain)]))
    lines: list[Line] = []
    for method in order:
        target = next((t for t in known if t.method == method), None)
        rows: list[Row | None] = [row for row in plain if row.method == method]
        for row in rows or [None]:
            lines.append(Line([_name(method, row)], target, row, f"--method {method}"))
    return _table("methods", "Methods (Table 1 of the paper)", ["method"], lines, found)


def losses_table(found: Benchmark, targets: Sequence[Target]) -> Table:
    """Return table 2: guided attention and each loss switched off."""
    known = published(found.cache.dataset, "losses", targets)
    lines = []
    for asked in read_recipe("tables")["2"]["rows"]:
        head, off = asked.get("head", DEFAULT_HEAD), sorted(asked.get("settings", {}))
        without = tuple(name.removeprefix("losses.") for name in off)
        target = next((t for t in known if (t.head, t.without) == (head, without)), None)
        names = [
            _yes(head == DEFAULT_HEAD),
            "yes",
            *(_yes(t not in without) for t in ("kd", "feature")),
        ]
        for row in _matching(found, asked["method"], head, "av", without):
            mine = [names[0] + (details(row) if row else ""), *names[1:]]
            lines.append(Line(mine, _if_fits(target, found), row, _options(asked)))
    headings = ["att.", "CE", "KD", "feat."]
    return _table(
        "losses", "Parts of the guided method (Table 2 of the paper)", headings, lines, found
    )


def modalities_table(found: Benchmark, targets: Sequence[Target]) -> Table:
    """Return table 3: one modality against both."""
    known = published(found.cache.dataset, "modalities", targets)
    lines = []
    for asked in read_recipe("tables")["3"]["rows"]:
        modality, head = asked.get("modality", "av"), asked.get("modality", DEFAULT_HEAD)
        target = next((t for t in known if t.modality == modality), None)
        for row in _matching(found, asked["method"], head, modality, ()):
            mine = [NAMES_OF_MODALITIES[modality] + (details(row) if row else "")]
            lines.append(Line(mine, _if_fits(target, found), row, _options(asked)))
    return _table("modalities", "Modalities (Table 3 of the paper)", ["modality"], lines, found)


def _options(asked: Mapping[str, Any]) -> str:
    """Return the options of `avcil train` for a row of a table's recipe."""
    options = [f"--{name} {value}" for name, value in asked.items() if name != "settings"]
    settings = sorted(asked.get("settings", {}).items())
    return " ".join([*options, *(f"--set {name}={value}" for name, value in settings)])


def _table(name: str, title: str, names: list[str], lines: list[Line], found: Benchmark) -> Table:
    """Lay out lines; the published columns are there only where something was published."""
    any_published = any(line.target for line in lines)
    columns = [Column(each, figure=False) for each in names]
    if any_published:
        columns += [
            Column("acc.", best=max, group=PUBLISHED),
            Column("forg.", best=min, group=PUBLISHED),
        ]
    columns += [
        Column("acc.", best=max, group=RERUN),
        Column("forg.", best=min, group=RERUN),
        Column("seeds"),
    ]
    rows = [
        [
            *(Cell(each) for each in line.names),
            *(_published_cells(line.target) if any_published else []),
            *_rerun_cells(line.row),
        ]
        for line in lines
    ]
    mark_best(columns, rows, [line.competes for line in lines])
    used = [line.row for line in lines if line.row]
    notes = [*([ORIGIN] if any_published else []), *benchmark_notes(found, used)]
    return Table(
        name, f"{title}. {name_benchmark(found)}", columns, rows, notes, _commands(lines, found)
    )


def _published_cells(target: Target | None) -> list[Cell]:
    if target is None:
        return [Cell(NOTHING), Cell(NOTHING)]
    return [number_cell(target.mean_accuracy), number_cell(target.average_forgetting)]


def number_cell(value: float | None) -> Cell:
    """Return a figure that comes without a deviation."""
    return Cell(NOTHING) if value is None else Cell(f"{value:.2f}", value)


def _rerun_cells(row: Row | None) -> list[Cell]:
    if row is None:
        return [Cell(""), Cell(""), Cell("")]
    return [figure_cell(row.accuracy), figure_cell(row.forgetting), count_cell(row.seeds)]


def _commands(lines: Iterable[Line], found: Benchmark) -> list[str]:
    """Return what to run for the lines without a re-run; plain methods share one command."""
    missing = list(dict.fromkeys(line.options for line in lines if line.row is None))
    plain = [options for options in missing if options.count(" ") == 1]
    if len(plain) > 1:
        joined = ",".join(options.removeprefix("--method ") for options in plain)
        missing = [f"--method {joined}", *(each for each in missing if each not in plain)]
    start = f"avcil train --dataset {shlex.quote(found.cache.dataset)} --tasks {len(found.sizes)}"
    start += _protocol_options(found)
    return [f"{start} {options} {SEEDS}" for options in missing]


def _protocol_options(found: Benchmark) -> str:
    """Return the options that give the sizes of the tasks and what all rows were trained with."""
    sizes, options = found.sizes, ""
    if sizes[0] != sum(sizes) // len(sizes):
        options += f" --first-task {sizes[0]}"
    for name in ("recipe", "memory"):
        values = {row.settings.get(name) for row in found.rows}
        if len(values) == 1 and None not in values:
            options += f" --{name} {shlex.quote(str(values.pop()))}"
    return options


def _matching(
    found: Benchmark, method: str, head: str, modality: str, without: tuple[str, ...]
) -> list[Row | None]:
    """Return all rows of one configuration, labelled among themselves; [None] without any."""
    wanted = (method, head, modality, without)
    rows = [
        row
        for row in found.rows
        if (row.method, row.head, row.modality, row.switched_off) == wanted
    ]
    return [*named(rows)] or [None]


def _in_order(rows: Iterable[Row]) -> list[str]:
    """Return the methods of rows: those of the paper in its order, then the others by name."""
    known = list(OF_0_1_0)
    methods = {row.method for row in rows}
    return sorted(methods, key=lambda m: (known.index(m) if m in known else len(known), m))


def _name(method: str, row: Row | None) -> str:
    """Return the title of a method, with what tells this row from its rivals."""
    if row is None:
        return facts_without_a_run(method).title
    return row.facts.title + row.label.removeprefix(method)


def _fits(target: Target, found: Benchmark) -> bool:
    return target.tasks in (None, len(found.sizes))


def _if_fits(target: Target | None, found: Benchmark) -> Target | None:
    return target if target and _fits(target, found) else None


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def tasks_table(group: Sequence[Benchmark], targets: Sequence[Target]) -> Table | None:
    """Return table 4: mean accuracy in fewer and in more tasks; None for a single protocol.

    Args:
        group: benchmarks of the same clips of one cache, at least one.
        targets: published figures.
    """
    known = published(group[0].cache.dataset, "tasks", targets)
    counts = sorted({*(len(b.sizes) for b in group), *(t.tasks for t in known if t.tasks)})
    reruns = [rerun for count in counts for rerun in _reruns(count, group)]
    if len(reruns) < 2:
        return None
    plain = [row for found in group for row in found.rows if not row.ablated]
    methods = list(dict.fromkeys([*(t.method for t in known), *_in_order(plain)]))
    facts = {method: facts_without_a_run(method) for method in methods}
    facts |= {row.method: row.facts for row in plain}
    columns = [Column("method", figure=False)]
    if known:
        columns += [Column(f"{count} tasks", best=max, group=PUBLISHED) for count in counts]
    columns += [Column(heading, best=max, group=RERUN) for heading, _ in reruns]
    rows = [
        [
            Cell(facts[method].title),
            *(_published_tasks(method, counts, known) if known else []),
            *(_best_cell(method, found) for _, found in reruns),
        ]
        for method in methods
    ]
    mark_best(columns, rows, [not facts[method].upper_bound for method in methods])
    title = f"Mean accuracy by number of tasks (Table 4 of the paper). {name_clips(group[0])}"
    notes = [*([ORIGIN] if known else []), *benchmark_notes(group[0], plain), CHOICE]
    return Table("tasks", title, columns, rows, notes, _tasks_commands(methods, counts, group))


def _reruns(count: int, group: Iterable[Benchmark]) -> list[tuple[str, list[Benchmark]]]:
    """Return heading and benchmark of each column of a number of tasks, one for each sizes."""
    found = [benchmark for benchmark in group if len(benchmark.sizes) == count]
    if len(found) < 2:
        return [(f"{count} tasks", found)]
    return [(f"{count} tasks ({spell_sizes(each.sizes)})", [each]) for each in found]


def _published_tasks(method: str, counts: Iterable[int], known: Iterable[Target]) -> list[Cell]:
    targets = {t.tasks: t for t in known if t.method == method}
    return [number_cell(targets[n].mean_accuracy if n in targets else None) for n in counts]


def _best_cell(method: str, group: Iterable[Benchmark]) -> Cell:
    """Return the accuracy of a method's plain row; of several, the best on validation clips."""
    rows = [row for b in group for row in b.rows if row.method == method and not row.ablated]
    return figure_cell(max(rows, key=lambda row: row.validation).accuracy) if rows else Cell("")


def _tasks_commands(
    methods: Sequence[str], counts: Sequence[int], group: Sequence[Benchmark]
) -> list[str]:
    commands = []
    for count in counts:
        fitting = [b for b in group if len(b.sizes) == count]
        missing = [method for method in methods if not _best_cell(method, fitting).text]
        if missing:
            commands.append(
                f"avcil train --dataset {shlex.quote(group[0].cache.dataset)} --tasks {count} "
                f"--method {','.join(missing)} {SEEDS}"
            )
    return commands


METHODS = OfEach(methods_table)
LOSSES = OfEach(losses_table)
MODALITIES = OfEach(modalities_table)
TASKS = OfGroups(tasks_table, key=lambda found: (found.cache, found.rows_digest))
