"""The sample cache: to read, to change, and compressed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import avcil.cache
from avcil.cache.reader import FeatureStore
from avcil.cache.samples import write_sample
from avcil.cache.schema import Storage


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample, for tests that only read it."""
    return write_sample(tmp_path_factory.mktemp("sample") / "c")


@pytest.fixture(scope="session")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = Storage(compression="zstd")
    return write_sample(tmp_path_factory.mktemp("compressed") / "c", storage=storage)


@pytest.fixture(scope="session")
def store(sample: Path) -> FeatureStore:
    return avcil.cache.open(sample)


@pytest.fixture(params=["sample", pytest.param("compressed", marks=pytest.mark.slow)])
def either(request: pytest.FixtureRequest) -> Path:
    """The sample, and the same clips compressed."""
    return Path(request.getfixturevalue(request.param))


@pytest.fixture
def cache(sample: Path, tmp_path: Path) -> Path:
    """A copy of the sample that a test may change."""
    return Path(shutil.copytree(sample, tmp_path / "c"))


@pytest.fixture
def token_files() -> Callable[[Path], dict[str, bytes]]:
    """Read all files except the header, which has the date, and the lock."""
    return lambda cache: {
        str(path.relative_to(cache)): path.read_bytes()
        for path in cache.rglob("*")
        if path.is_file() and path.name != "lock" and path != cache / "zarr.json"
    }
