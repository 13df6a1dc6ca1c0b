"""Run folders made up for the report's tests: what the trainer writes, without training."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from avcil.incremental.report.rows import Benchmark
from avcil.incremental.report.select import benchmarks, gather
from avcil.incremental.runs.results import CacheIdentity, Results, write_json, write_results

TINY = CacheIdentity(
    dataset="demo", encoder="tiny", fingerprint="f" * 40, random_weights=True, clips=400
)
SAM_AUDIO = CacheIdentity(
    dataset="ave", encoder="sam-audio", fingerprint="a" * 40, random_weights=False, clips=4079
)
LEARNS = {"finetune": (0.95, 0.35), "joint": (0.93, 0.99), "guided": (0.92, 0.95)}
"""Method: accuracy on a new task, and what is kept of it with every further task."""
MakeRun = Callable[..., Path]

METHODS = ("finetune", "guided", "joint", "lwf")
CONFUSION = [[20 if i == j else 1 for j in range(10)] for i in range(10)]
MOST_BYTES = 5_000_000
"""Of a page."""


def write_run(
    root: Path,
    method: str = "guided",
    *,
    seed: int = 0,
    cache: CacheIdentity = TINY,
    tasks: int = 5,
    correct: list[list[int]] | None = None,
    total: list[int] | None = None,
    order: list[str] | None = None,
    validation: list[float] | None = None,
    extra: dict[str, Any] | None = None,
    epochs: int = 4,
    **settings: Any,
) -> Path:
    """Write one finished run and return its folder; `settings` go into the configuration."""
    config = configuration(method, seed, cache, tasks) | settings
    chance = random.Random(f"{method} {seed} {sorted(map(str, settings.items()))}")
    names = order or [f"class {i}" for i in range(2 * tasks)]
    per_task = len(names) // tasks
    total = total or [20] * tasks
    results = Results(
        cache=cache,
        tasks=[names[k * per_task : (k + 1) * per_task] for k in range(tasks)],
        total=total,
        correct=correct or made_up(method, total, chance),
        validation_accuracy=validation or [0.5] * tasks,
        best_epochs=[epochs - 1] * tasks,
        exemplars=[[f"clip {i}" for i in range(60)]] * tasks,
        seconds=[2.0 + chance.random() for _ in range(tasks)],
        versions={"avcil": "0.1.0"},
        **(extra or {}),
    )
    folder = root / cache.dataset / f"{method}-{len(list(root.glob('*/*'))):03d}"
    folder.mkdir(parents=True)
    write_json(folder / "config.json", config)
    write_results(folder, results)
    write_metrics(folder, tasks, epochs, config["losses"])
    return folder


def configuration(method: str, seed: int, cache: CacheIdentity, tasks: int) -> dict[str, Any]:
    return {
        "method": {"name": method, "temperature": 2.0},
        "head": {"name": "guided", "width": 512, "layers": 1},
        "losses": {"ce": 1.0, "feature": 1.0, "kd": 1.0},
        "dataset": cache.dataset,
        "modality": "av",
        "tasks": tasks,
        "recipe": "fast",
        "seed": seed,
        "order_seed": None,
        "class_order": None,
        "memory": 340 if cache.dataset == "ave" else 60,
        "epochs": 4,
        "batch_size": 32,
    }


def made_up(method: str, total: list[int], chance: random.Random) -> list[list[int]]:
    """Return a lower triangle of counts that looks like the method."""
    new, kept = LEARNS.get(method, (0.9, 0.8))
    level = [min(1.0, new + chance.uniform(-0.05, 0.05)) for _ in total]
    return [
        [round(total[i] * level[i] * kept ** (k - i)) for i in range(k + 1)]
        for k in range(len(total))
    ]


def write_metrics(folder: Path, tasks: int, epochs: int, losses: dict[str, float]) -> None:
    lines = [
        {
            "task": task,
            "epoch": epoch,
            "lr": 1e-3 / (epoch + 1),
            "seconds": 0.5,
            "validation_accuracy": 0.5,
            "losses": {term: weight / (epoch + 1) for term, weight in losses.items()},
        }
        for task in range(tasks)
        for epoch in range(epochs)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text, "utf-8")


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Write a run below the test's folder: `make_run("guided", seed=1, memory=20)`."""

    def make(method: str = "guided", **settings: Any) -> Path:
        return write_run(tmp_path, method, **settings)

    return make


@pytest.fixture
def tiny() -> CacheIdentity:
    return TINY


@pytest.fixture
def sam_audio() -> CacheIdentity:
    return SAM_AUDIO


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> list[Benchmark]:
    """Rows of some methods, with confusion matrices; read only."""
    root = tmp_path_factory.mktemp("runs")
    for method in METHODS:
        for seed in range(2):
            write_run(root, method, seed=seed, extra={"confusion": CONFUSION})
    write_run(root, "guided", memory=20)
    return benchmarks(gather([root]).runs)[0]
