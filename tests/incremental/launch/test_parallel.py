"""Many runs at once: the same bits as one after the other, and none lost for another's fault."""

from __future__ import annotations

import gc
import io
import os
import socket
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest
import torch

from avcil.cache.reader import FeatureStore
from avcil.incremental.config.config import Config
from avcil.incremental.config.resolve import Request
from avcil.incremental.errors import NonFiniteLoss, RunBusy, RunsFailed
from avcil.incremental.heads.network import Network
from avcil.incremental.launch.parallel import suitable_processes
from avcil.incremental.launch.run import Job
from avcil.incremental.launch.schedule import resolve_all, train
from avcil.incremental.runs.folder import RunFolder
from avcil.incremental.runs.results import read_run
from avcil.runtime.progress import Bar
from tests.incremental.small import SMALL

SETTINGS = {**SMALL, "head.heads": 2}


def configs(store: FeatureStore, methods: Sequence[str], **settings: object) -> list[Config]:
    requests = [Request(method=name, settings={**SETTINGS, **settings}) for name in methods]
    return resolve_all(store, requests)


def leavings(folder: Path) -> dict[str, object]:
    """What a run comes to: its matrix, and the bits of its weights."""
    weights = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    return {"matrix": read_run(folder).results.correct, **weights}


def with_defect(config: Config) -> Config:
    """Return a configuration that no check has seen, and on which training raises a TypeError."""
    return replace(config, optimizer="sgd", momentum=cast(float, "a lot"))


@dataclass(frozen=True)
class Attempt:
    """Five runs, of which the first two fail: by a loss that is not finite, and by a defect."""

    bad: list[str]
    """Names."""
    good: list[Path]
    """Folders."""
    error: RunsFailed
    told: str


@pytest.fixture(scope="module")
def attempts(
    toy_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Attempt]:
    """The same five runs, in turn and in two processes."""
    good = configs(toy_store, ["guided", "finetune", "icarl-nme"])
    bad = [*configs(toy_store, ["guided"], learning_rate=1e30), with_defect(good[1])]
    attempts = {}
    for parallel in (1, 2):
        runs = tmp_path_factory.mktemp("runs")
        with redirect_stderr(io.StringIO()) as told, pytest.raises(RunsFailed) as failure:
            train(toy_store, bad + good, runs, parallel=parallel)
        folders = [RunFolder.of(runs, each).path for each in good]
        names = [each.run_name for each in bad]
        attempts[parallel] = Attempt(names, folders, failure.value, told.getvalue())
    return attempts


def test_runs_in_processes_end_with_the_bits_of_runs_in_turn(attempts: dict[int, Attempt]) -> None:
    turn, once = attempts[1].good, attempts[2].good
    assert [leavings(folder) for folder in once] == [leavings(folder) for folder in turn]


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_run_that_fails_is_named_and_the_others_are_trained(
    attempts: dict[int, Attempt], parallel: int
) -> None:
    attempt = attempts[parallel]
    assert "2 of 5 runs failed" in str(attempt.error)
    assert [name for name in attempt.bad if name not in str(attempt.error)] == []
    assert all(read_run(folder).results.complete for folder in attempt.good)
    assert "loss term" in attempt.told


@pytest.mark.parametrize("parallel", [1, 2])
def test_an_exception_of_any_kind_keeps_no_other_run_from_being_trained(
    attempts: dict[int, Attempt], parallel: int
) -> None:
    attempt = attempts[parallel]
    assert f"{attempt.bad[1]} failed: TypeError: '<' not supported between" in attempt.told
    assert "Traceback (most recent call last)" in attempt.told
    assert "memory ran out" not in attempt.told


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_run_that_is_asked_for_twice_is_trained_once(
    toy_store: FeatureStore, tmp_path: Path, parallel: int
) -> None:
    (asked,) = configs(toy_store, ["finetune"])
    (folder,) = train(toy_store, [asked, asked], tmp_path, parallel=parallel)
    assert read_run(folder).results.complete


class NetworkCounter(Bar):
    """Counts the networks that are alive after each epoch."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def advance(self, amount: int = 1, note: str = "", items: int = 0) -> None:
        gc.collect()
        self.seen.append(sum(type(each) is Network for each in gc.get_objects()))

    def skip(self, amount: int) -> None:
        pass


def test_a_run_that_fails_takes_no_memory_from_the_next(
    toy_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gc.collect()
    before = sum(type(each) is Network for each in gc.get_objects())
    bar = NetworkCounter()
    monkeypatch.setattr("avcil.incremental.launch.schedule.track", lambda *_: nullcontext(bar))
    bad = configs(toy_store, ["joint"], learning_rate=1e30)
    next_one = configs(toy_store, ["finetune"], tasks=2, epochs=1)
    with pytest.raises(RunsFailed):
        train(toy_store, bad + next_one, tmp_path)
    assert bar.seen[-1] - before == 1


def test_where_all_runs_fail_no_other_is_said_to_be_done(
    toy_store: FeatureStore, tmp_path: Path
) -> None:
    asked = configs(toy_store, ["guided", "finetune"], learning_rate=1e30)
    with pytest.raises(RunsFailed, match="2 of 2 runs failed") as failure:
        train(toy_store, asked, tmp_path)
    assert "others" not in str(failure.value)


def test_small_runs_on_a_cpu_share_the_cores_unasked(
    toy_store: FeatureStore, tmp_path: Path
) -> None:
    def processes(device: str, **settings: object) -> int:
        asked = configs(toy_store, ["guided", "finetune", "joint"], **settings)
        jobs = [Job(each, RunFolder.of(tmp_path, each), "") for each in asked]
        return suitable_processes(jobs, toy_store, torch.device(device))

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert processes("cpu") == 2
        torch.set_num_threads(16)
        assert processes("cpu") == 3
        assert processes("cpu", batch_size=10**7) == 1
        assert processes("cuda") == 1
    finally:
        torch.set_num_threads(before)


def test_the_error_of_a_single_run_is_its_own(toy_store: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLoss):
        train(toy_store, configs(toy_store, ["guided"], learning_rate=1e30), tmp_path)


def test_a_run_is_trained_by_one_process_at_a_time(toy_store: FeatureStore, tmp_path: Path) -> None:
    asked = configs(toy_store, ["finetune"])
    with RunFolder.of(tmp_path, asked[0]).lock():
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        with pytest.raises(RunBusy, match=f"{asked[0].run_name} is being trained by {holder}"):
            train(toy_store, asked, tmp_path)
    (folder,) = train(toy_store, asked, tmp_path)  # the file of the lock is still there
    assert read_run(folder).results.complete


@pytest.mark.slow
def test_runs_on_two_workers_of_ray_end_with_the_bits_of_local_ones(
    toy_store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'avcil[ray]'")
    bad = configs(toy_store, ["guided"], learning_rate=1e30)
    asked = configs(toy_store, ["guided", "finetune", "icarl-nme"])
    local = train(toy_store, asked, tmp_path / "local")
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
    try:
        bad.append(with_defect(asked[0]))
        with pytest.raises(RunsFailed, match=f"2 of 5 runs failed.*{bad[0].run_name}"):
            train(toy_store, [*asked, *bad], tmp_path / "ray", engine="ray")
    finally:
        ray.shutdown()
    assert "failed: TypeError: '<' not supported between" in capsys.readouterr().err
    spread = [RunFolder.of(tmp_path / "ray", each).path for each in asked]
    assert [leavings(folder) for folder in spread] == [leavings(folder) for folder in local]
