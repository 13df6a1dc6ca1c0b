"""Extraction on Ray: the same arrays as without it, on a disk and in a bucket, whoever dies."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from avcil.cache.format.layout import RECORDS
from avcil.cache.storage.open import open_files
from avcil.cache.verify import verify
from avcil.extract.datasets import Dataset
from avcil.extract.encoders import load_encoder
from avcil.extract.errors import EngineError
from avcil.extract.pipeline import coordinate, extract
from avcil.extract.plan import EncoderChoice, Plan, Settings
from avcil.runtime.cluster import NoCluster, joined
from tests.extract.fakes import assert_equal_caches

pytestmark = pytest.mark.slow
SETTINGS = Settings(seconds=2, visual_rate_hz=8, workers=1, shard_clips=2)


@pytest.fixture(autouse=True)
def quiet_ray() -> Iterator[None]:
    """Let Ray's own warnings be: of its future, and of processes that it reaps later."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def workers_of_ray() -> list[int]:
    """Return the processes of our actors: Ray's scheduler, their parent, is a child of ours."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if b"ray::RayWorker" in (folder / "cmdline").read_bytes():
                pid = int(folder.name)
                if os.getpid() in (parent(pid), parent(parent(pid))):
                    found.append(pid)
        except (OSError, ValueError):
            continue
    return found


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def kill_one(path: Path | str, killed: list[int]) -> None:
    """Kill a worker as soon as two shards are written."""
    while len(open_files(path).names(RECORDS)) < 2:
        time.sleep(0.01)
    killed.append(workers_of_ray()[0])
    os.kill(killed[0], signal.SIGKILL)


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_a_worker_killed_in_the_middle_costs_nothing_but_time(
    dataset: Dataset, tmp_path: Path, s3: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from avcil.extract.on_ray import Actors, Cluster

    path = tmp_path / "c" if place == "disk" else f"{s3}/c"
    encoder = EncoderChoice("tiny", tmp_path)
    plan = Plan(dataset=dataset, encoder=encoder, path=path, settings=SETTINGS)
    killed: list[int] = []
    thread = threading.Thread(target=kill_one, args=(path, killed))
    with joined():
        thread.start()
        workers = Actors(plan, Cluster.choose(workers=2))
        summary = coordinate(workers, plan.dataset, plan.path, plan.settings)
        thread.join()
    assert "another one continues" in capsys.readouterr().err
    assert killed
    assert (summary.encoded, summary.failures) == (24, {})
    extract(dataset, load_encoder("tiny", torch.device("cpu")), tmp_path / "local", SETTINGS)
    assert_equal_caches(path, tmp_path / "local")
    assert not verify(path).damages


def test_a_cluster_that_does_not_answer_is_one_line_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(NoCluster, match=r"no Ray cluster answers at RAY_ADDRESS=127\.0\.0\.1:1"):
        joined().__enter__()


def test_more_gpus_than_the_cluster_has_are_refused() -> None:
    with joined():
        from avcil.extract.on_ray import Cluster

        with pytest.raises(EngineError, match=r"--gpus 99: the Ray cluster has [0-9]+ GPUs"):
            Cluster.choose(gpus=99)


@pytest.fixture
def machines() -> Iterator[Callable[..., Any]]:
    """Return what makes a cluster of pretended machines from the resources of each."""
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'avcil[ray]'")
    from ray.cluster_utils import Cluster

    clusters = []

    def make(*resources: dict[str, Any]) -> Any:
        cluster = Cluster(initialize_head=True, head_node_args=resources[0])
        clusters.append(cluster)
        for each in resources[1:]:
            cluster.add_node(**each)
        ray.init(address=cluster.address, logging_level="warning")
        return cluster

    yield make
    ray.shutdown()
    for cluster in clusters:
        cluster.shutdown()


def test_a_gpu_gets_the_cores_of_its_own_machine(machines: Callable[..., Any]) -> None:
    from avcil.extract.on_ray import Cluster

    machines({"num_cpus": 64, "num_gpus": 0}, {"num_cpus": 8, "num_gpus": 2})
    cluster = Cluster.choose()
    assert (cluster.workers, cluster.cores, cluster.each) == (2, 4, 2)


def test_a_machine_removed_in_the_middle_costs_nothing_but_time(
    machines: Callable[..., Any], dataset: Dataset, tmp_path: Path
) -> None:
    from avcil.extract.on_ray import Actors, Cluster

    pretended = machines({"num_cpus": 2, "num_gpus": 0}, {"num_cpus": 4, "num_gpus": 0})
    cluster = Cluster.choose()
    assert (cluster.workers, cluster.cores, cluster.each) == (2, 2, 1)
    assert len(set(cluster.machines)) == 2, "each machine has a worker"
    plan = Plan(
        dataset=dataset,
        encoder=EncoderChoice("tiny", tmp_path),
        path=tmp_path / "c",
        settings=SETTINGS,
    )
    removed = threading.Event()

    def remove() -> None:
        while len(open_files(plan.path).names(RECORDS)) < 2:
            time.sleep(0.01)
        pretended.remove_node(sorted(pretended.worker_nodes, key=str)[0], allow_graceful=False)
        removed.set()

    thread = threading.Thread(target=remove)
    thread.start()
    summary = coordinate(Actors(plan, cluster), plan.dataset, plan.path, plan.settings)
    thread.join()
    assert removed.is_set()
    assert (summary.encoded, summary.failures) == (24, {})
    extract(dataset, load_encoder("tiny", torch.device("cpu")), tmp_path / "local", SETTINGS)
    assert_equal_caches(plan.path, tmp_path / "local")
