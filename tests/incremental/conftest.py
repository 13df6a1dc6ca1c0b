"""Small runs on a toy cache, with tokens at any placement."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from avcil.cache.reader import FeatureStore
from avcil.incremental.config.config import Config
from avcil.incremental.config.resolve import Request
from avcil.incremental.data.placement import Placement
from avcil.incremental.launch.run import new_results
from avcil.incremental.launch.schedule import resolve_all
from avcil.incremental.runs.folder import RunFolder
from avcil.incremental.runs.results import read_metrics, read_run
from avcil.incremental.train.precision import suitable_threads
from avcil.incremental.train.scenario import Scenario
from avcil.incremental.train.trainer import Trainer
from avcil.runtime.progress import track
from tests.incremental.small import SMALL

SETTINGS = {**SMALL, "learning_rate": 2e-3}


@pytest.fixture(scope="session")
def small() -> dict[str, object]:
    return SETTINGS


@pytest.fixture(scope="session")
def configure() -> Callable[..., Config]:
    """Resolve a small configuration: `configure(store, "guided", epochs=5)`."""

    def resolved(store: FeatureStore, method: str = "guided", /, **settings: object) -> Config:
        (config,) = resolve_all(store, [Request(method=method, settings={**SETTINGS, **settings})])
        return config

    return resolved


@pytest.fixture(scope="session")
def run() -> Callable[[FeatureStore, Config, Path, Placement], Path]:
    """Train one configuration with a placement and return its run folder."""

    def trained(store: FeatureStore, config: Config, runs: Path, placement: Placement) -> Path:
        folder, scenario = RunFolder.of(runs, config), Scenario(config, store)
        results = new_results(config, store, scenario, placement.device)
        folder.start(config, results)
        with suitable_threads(config, store.encoding), track("test", 9, "epochs") as bar:
            Trainer(config, scenario, folder, results, placement).run(bar)
        return folder.path

    return trained


@pytest.fixture(scope="session")
def weights() -> Callable[[Path], list[bytes]]:
    """Read the bits of the weights after each of three tasks."""
    return lambda folder: [(folder / f"task-{task}.safetensors").read_bytes() for task in range(3)]


@pytest.fixture(scope="session")
def outcome() -> Callable[[Path], dict[str, object]]:
    """Read what two equal runs share: matrix, bits of the weights, metrics of each epoch."""

    def read(folder: Path) -> dict[str, object]:
        results = read_run(folder).results
        bits = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
        trained = (folder / "metrics.jsonl").exists()  # a closed form has no epochs
        metrics = read_metrics(folder) if trained else ()
        epochs = [(e.task, e.epoch, e.losses, e.validation_accuracy) for e in metrics]
        return {"matrix": results.correct, "chosen": results.best_epochs, "epochs": epochs, **bits}

    return read
