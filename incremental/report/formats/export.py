"""Reports for other programs: CSV with a line per row or per run, and JSON with everything."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from operator import attrgetter
from typing import Any

from avcil.incremental.report.rows import Benchmark, Row, Summary, class_order, spell_sizes
from avcil.incremental.runs.results import Run

JSON_FORMAT = 1
MORE_FIGURES = (
    "backward_transfer", "forgetting_including_last", "first_minus_last", "anytime_accuracy",
    "old_accuracy", "new_accuracy",
)  # fmt: skip
FIGURES = ("mean_accuracy", "average_forgetting", "last_accuracy", *MORE_FIGURES)
"""Properties of the accuracy matrix that are written in percent, None where there is none."""
VERSIONS = ("precision", "device", "avcil", "torch", "numpy", "python")


def comma_separated(found: Iterable[Benchmark]) -> str:
    """Return one line a row, figures in per cent and unrounded, empty where there is none."""
    return _csv([_csv_line(benchmark, row) for benchmark in found for row in benchmark.rows])


def runs_comma_separated(found: Iterable[Benchmark]) -> str:
    """Return one line a run: its figures in per cent, its versions, and a column a setting."""
    return _csv(
        [_run_line(each, row, run) for each in found for row in each.rows for run in row.runs]
    )


def _csv(lines: Sequence[Mapping[str, object]]) -> str:
    page = io.StringIO()
    names = dict.fromkeys(name for line in lines for name in line)
    writer = csv.DictWriter(page, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return page.getvalue()


def _run_line(found: Benchmark, row: Row, run: Run) -> dict[str, object]:
    details, results = run_details(run), run.results
    leak_free = results.leak_free
    line: dict[str, object] = {
        **asdict(found.cache),
        "classes_per_task": spell_sizes(found.sizes),
        "label": row.label,
        "row": row.digest,
        "folder": details["folder"],
        "seed": details["seed"],
        "order_seed": run.config.get("order_seed"),
        "class_order": json.dumps(class_order(run), ensure_ascii=False),
        **{name: details[name] for name in FIGURES},
        "leak_free_accuracy": _number(100 * leak_free.mean_accuracy) if leak_free else None,
        "seconds": sum(results.seconds),
        **{name: results.versions.get(name) for name in VERSIONS},
        "resumed": json.dumps(results.resumed) if results.resumed else None,
    }
    return line | {name: value for name, value in row.settings.items() if name not in line}


def _csv_line(found: Benchmark, row: Row) -> dict[str, object]:
    cache = found.cache
    line: dict[str, object] = {
        "dataset": cache.dataset,
        "encoder": cache.encoder,
        "fingerprint": cache.fingerprint,
        "random_weights": str(cache.random_weights).lower(),
        "tasks": len(found.sizes),
        "method": row.method,
        "modality": row.modality,
        "head": row.head,
        "without": " ".join(row.switched_off),
        "label": row.label,
        "settings": row.digest,
        "mean_accuracy": _number(row.accuracy.mean),
        "mean_accuracy_deviation": row.accuracy.deviation,
        "average_forgetting": _number(row.forgetting.mean),
        "average_forgetting_deviation": _number(row.forgetting.deviation),
        "seeds": row.seeds,
        "orders": row.orders,
        "last_accuracy": _number(row.last.mean),
        "last_accuracy_deviation": row.last.deviation,
        "leak_free_accuracy": row.leak_free and _number(row.leak_free.mean),
        "leak_free_accuracy_deviation": row.leak_free and row.leak_free.deviation,
    }
    for name in MORE_FIGURES:
        summary = row.summary(attrgetter(name))
        line[name] = _number(summary.mean)
        line[f"{name}_deviation"] = _number(summary.deviation)
    return line


def _number(value: float | None) -> float | None:
    """Return None for NaN, which neither CSV nor JSON has."""
    return None if value is None or math.isnan(value) else value


def as_json(found: Iterable[Benchmark]) -> str:
    """Return everything that the report knows; docs/report.md describes the keys."""
    value = {"format": JSON_FORMAT, "benchmarks": [_benchmark(each) for each in found]}
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _benchmark(found: Benchmark) -> dict[str, Any]:
    return {
        "cache": asdict(found.cache),
        "classes_per_task": list(found.sizes),
        "rows": [_row(row) for row in found.rows],
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "label": row.label,
        "method": row.method,
        "modality": row.modality,
        "head": row.head,
        "settings": dict(row.settings),
        "seeds": row.seeds,
        "orders": row.orders,
        "mean_accuracy": _summary(row.accuracy),
        "average_forgetting": _summary(row.forgetting),
        "last_accuracy": _summary(row.last),
        "leak_free_accuracy": _summary(row.leak_free) if row.leak_free else None,
        **{name: _summary(row.summary(attrgetter(name))) for name in MORE_FIGURES},
        "runs": [run_details(run) for run in row.runs],
    }


def _summary(summary: Summary) -> dict[str, float | None]:
    return {"mean": _number(summary.mean), "deviation": _number(summary.deviation)}


def run_details(run: Run) -> dict[str, Any]:
    """Return one run: its counts, from which every figure follows, and its figures in per cent."""
    results, matrix = run.results, run.results.matrix
    return {
        "folder": run.folder.name,
        "seed": run.config["seed"],
        "classes": results.tasks,
        "total": results.total,
        "correct": results.correct,
        "seconds": results.seconds,
        "versions": results.versions,
        "resumed": results.resumed,
        **{name: _number(100 * getattr(matrix, name)) for name in FIGURES},
    }
