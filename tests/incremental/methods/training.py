"""Small runs of any method on the toy cache."""

from __future__ import annotations

from pathlib import Path

from avcil.cache.reader import FeatureStore
from avcil.incremental.config.config import Config
from avcil.incremental.config.resolve import Request
from avcil.incremental.launch.schedule import resolve_all, train
from tests.incremental.small import SMALL

SETTINGS = {**SMALL, "epochs": 2, "learning_rate": 2e-3}
QUICK: dict[str, dict[str, object]] = {
    "ranpac": {"method.random_features": 200},
    "klda": {"method.random_features": 200},
}
"""What keeps a method with large defaults quick on the toy cache."""


def config(store: FeatureStore, method: str, /, **settings: object) -> Config:
    settings = {**SETTINGS, **QUICK.get(method, {}), **settings}
    (resolved,) = resolve_all(store, [Request(method=method, settings=settings)])
    return resolved


def run(store: FeatureStore, method: str, runs: Path, /, **settings: object) -> Path:
    (folder,) = train(store, [config(store, method, **settings)], runs, "cpu")
    return folder
