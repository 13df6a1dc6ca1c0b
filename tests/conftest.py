"""A small cache that heads can learn from in a second."""

import logging
import os
import runpy
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from avcil.cache.reader import FeatureStore
from avcil.cache.schema import Manifest, Split, Tokens
from avcil.cache.writer import CacheWriter
from avcil.incremental.contract.toy import (
    CLASSES,
    COUNTS,
    TOY,
    PoisonedStore,
    toy_manifest,
    toy_tokens,
    write_toy_cache,
)

# Before torch is imported, here and in the processes that tests start: on small matrices a second
# thread mostly waits for the first, and on a busy machine it makes products slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def leaking_manifest() -> Manifest:
    """Clips of two seconds a video; of each class, the first test clip's video is trained on."""
    clips: list[tuple[Split, int, str]] = []
    for split, count in COUNTS.items():
        for label in range(len(CLASSES)):
            for number in range(count):
                leaks = split == "test" and number == 0
                video = f"{label:02d}{'train' if leaks else split:_<5}{number:04d}"
                clips.append((split, label, f"{video}_{0 if split == 'train' else 1:06d}"))
    return Manifest.of("vs100", CLASSES, clips)


@pytest.fixture(scope="session")
def leaking_store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    path = tmp_path_factory.mktemp("leaking") / "features.zarr"
    return FeatureStore.open(write_toy_cache(path, leaking_manifest()))


@pytest.fixture(scope="session")
def toy_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_cache(tmp_path_factory.mktemp("toy") / "features.zarr")


@pytest.fixture(scope="session")
def toy_store(toy_cache: Path) -> FeatureStore:
    return FeatureStore.open(toy_cache)


@pytest.fixture(scope="session")
def ragged_store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Clips of many lengths, one token at least."""
    path, rng = tmp_path_factory.mktemp("ragged") / "features.zarr", np.random.default_rng(1)
    manifest = toy_manifest("ragged")
    with CacheWriter.open(path, manifest, TOY) as writer:
        for shard in writer.pending():
            whole = [toy_tokens(int(manifest.labels[row]), rng) for row in writer.rows(shard)]
            cut = [
                Tokens(each.visual[: rng.integers(1, 5)], each.audio[: rng.integers(1, 6)])
                for each in whole
            ]
            writer.commit(shard, cut)
    return FeatureStore.open(path)


@pytest.fixture(scope="session")
def make_release() -> Callable[..., None]:
    """Give what writes a small folder of the shape of SAM-Audio's releases: make(folder, seed)."""
    script = Path(__file__).parent / "data" / "parity" / "make_checkpoint.py"
    return cast(Callable[..., None], runpy.run_path(str(script))["make"])


@pytest.fixture(scope="session")
def release(make_release: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small folder of the released shape; what is loaded from it keeps a file beside."""
    folder = tmp_path_factory.mktemp("release")
    make_release(folder)
    return folder


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Serve S3 on this machine, with one empty bucket; give the server's address."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    request = urllib.request.Request(f"http://{host}:{port}/bucket", method="PUT")
    urllib.request.urlopen(request).close()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def s3_environment(s3_server: str) -> dict[str, str]:
    """Give the variables that lead to the server."""
    return {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }


@pytest.fixture
def s3(s3_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give a URL below which nothing is stored, with the environment that reaches it."""
    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://bucket{tmp_path}"


@pytest.fixture
def poisoned(toy_store: FeatureStore) -> Callable[[Iterable[str]], FeatureStore]:
    """Make a toy store in which the named clips are NaN."""
    return lambda ids: cast(FeatureStore, PoisonedStore(toy_store, ids))
