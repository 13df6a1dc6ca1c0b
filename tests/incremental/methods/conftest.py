"""Runs that several tests of methods read."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from avcil.cache.reader import FeatureStore
from tests.incremental.methods.training import run


@pytest.fixture(scope="session")
def finished(
    toy_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Give the run of a method at the settings of `training`, to be read only."""
    runs = tmp_path_factory.mktemp("finished")
    return cache(lambda method: run(toy_store, method, runs))
