"""Reports for other programs: CSV, one line a row, and JSON, which holds every run."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from avcil.incremental.report.rows import Benchmark, Row, Summary
from avcil.incremental.runs.results import Run

JSON_FORMAT = 1
FIGURES = (
    "backward_transfer", "forgetting_including_last", "first_minus_last", "anytime_accuracy",
    "old_accuracy", "new_accuracy",
)  # fmt: skip
"""Properties of the accuracy matrix that are written in per cent, None where there is none."""
CSV_FIELDS = (
    "dataset", "encoder", "fingerprint", "random_weights", "tasks", "method", "modality", "head",
    "without", "label", "settings", "mean_accuracy", "mean_accuracy_deviation",
    "average_forgetting", "average_forgetting_deviation", "seeds", "orders",
)  # fmt: skip


def comma_separated(found: Iterable[Benchmark]) -> str:
    """Return one line a row, figures in per cent and unrounded, empty where there is none."""
    page = io.StringIO()
    writer = csv.DictWriter(page, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    for benchmark in found:
        writer.writerows(_csv_line(benchmark, row) for row in benchmark.rows)
    return page.getvalue()


def _csv_line(found: Benchmark, row: Row) -> dict[str, object]:
    cache = found.cache
    return {
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
    }


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
        "leak_free_accuracy": _summary(row.leak_free) if row.leak_free else None,
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
        "mean_accuracy": 100 * matrix.mean_accuracy,
        "average_forgetting": _number(100 * matrix.average_forgetting),
        "last_accuracy": 100 * matrix.last_accuracy,
        **{name: _number(100 * getattr(matrix, name)) for name in FIGURES},
    }
