"""A run that was stopped or killed, at whatever moment, ends as one that was left alone."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from avcil.cache.reader import FeatureStore
from avcil.incremental.config.config import Config
from avcil.incremental.config.resolve import Request
from avcil.incremental.errors import ConfigError, RunDamaged
from avcil.incremental.launch.schedule import resolve_all, train
from avcil.incremental.runs.folder import RunFolder
from avcil.incremental.runs.results import read_metrics, read_run
from avcil.incremental.train.checkpoint import SECONDS_BETWEEN, CheckpointTimer
from avcil.runtime.progress import Bar

KILLS = 20
EPOCHS = 25

SETTINGS: dict[str, object] = {
    "tasks": 3,
    "memory": 12,
    "epochs": 4,
    "batch_size": 8,
    "exemplar_batch_size": 4,
    "head.width": 16,
    "head.heads": 2,
    "head.dropout": 0.3,  # so that the state of the random generator matters within an epoch
}


def configs(store: FeatureStore, method: str = "guided", **settings: object) -> list[Config]:
    return resolve_all(store, [Request(method=method, settings={**SETTINGS, **settings})])


def leavings(folder: Path) -> dict[str, object]:
    """What a run comes to: its matrix, the bits of its weights, and what each epoch measured."""
    results = read_run(folder).results
    weights = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    epochs = [(e.task, e.epoch, e.losses, e.validation_accuracy) for e in read_metrics(folder)]
    return {"matrix": results.correct, "chosen": results.best_epochs, "epochs": epochs, **weights}


class Fake:
    """A clock that tests set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("cost_s", "pause_s"), [(0.125, 30.0), (0.5, 30.0), (2.0, 100.0)])
def test_checkpoints_pause_for_fifty_times_their_cost(cost_s: float, pause_s: float) -> None:
    clock = Fake()
    timer = CheckpointTimer(30.0, clock)
    clock.now += 29.875
    assert not timer.due
    clock.now += 0.125
    assert timer.due
    with timer.writing():
        clock.now += cost_s
    clock.now += pause_s - 0.125
    assert not timer.due
    clock.now += 0.125
    assert timer.due
    assert cost_s / (cost_s + pause_s) < 0.02


def test_a_checkpoint_interval_must_be_a_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(SECONDS_BETWEEN, "soon")
    with pytest.raises(ConfigError, match=r"AVCIL_CHECKPOINT_SECONDS takes seconds .* 'soon'"):
        CheckpointTimer()


class Interrupter(Bar):
    """Sends this process a signal after some epochs."""

    def __init__(self, number: signal.Signals, epochs: int) -> None:
        self.number, self.left = number, epochs

    def advance(self, amount: int = 1, note: str = "", items: int = 0) -> None:
        self.left -= amount
        if self.left == 0:
            signal.raise_signal(self.number)

    def skip(self, amount: int) -> None:
        pass


def interrupted(bar: Bar, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def track(*_: object) -> Iterator[Bar]:
        yield bar

    monkeypatch.setattr("avcil.incremental.launch.schedule.track", track)


@pytest.mark.parametrize("method", ["guided", "icarl-nme"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_within_an_epoch_and_loses_no_step(
    toy_store: FeatureStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    method: str,
) -> None:
    asked = configs(toy_store, method)
    (whole,) = train(toy_store, asked, tmp_path / "whole")
    for epochs in (1, 2, 4):  # the last from where the second left off: in another task
        with monkeypatch.context() as patch:
            interrupted(Interrupter(number, epochs), patch)
            with pytest.raises(KeyboardInterrupt):
                train(toy_store, asked, tmp_path / "cut")
        state = RunFolder.of(tmp_path / "cut", asked[0]).path / "state.pt"
        assert state.exists()
        assert "run the same command again to resume" in capsys.readouterr().err
    (cut,) = train(toy_store, asked, tmp_path / "cut")
    assert leavings(cut) == leavings(whole)
    assert not state.exists()


def test_tensorboard_shows_every_epoch_once(
    toy_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="needs TensorBoard: pip install 'avcil[tensorboard]'",
    )
    asked = configs(toy_store)
    for epochs in (2, 3):
        with monkeypatch.context() as patch:
            interrupted(Interrupter(signal.SIGINT, epochs), patch)
            with pytest.raises(KeyboardInterrupt):
                train(toy_store, asked, tmp_path)
        # As after a kill before the first resume point: epochs are shown, and trained again.
        (RunFolder.of(tmp_path, asked[0]).path / "state.pt").unlink()
    (folder,) = train(toy_store, asked, tmp_path)
    events = accumulator.EventAccumulator(str(folder)).Reload()
    measured = read_metrics(folder)
    assert [event.step for event in events.Scalars("lr")] == list(range(len(measured)))
    shown = [event.value for event in events.Scalars("loss/ce")]
    assert shown == pytest.approx([epoch.losses["ce"] for epoch in measured])


def test_a_damaged_checkpoint_is_named(
    toy_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = configs(toy_store)
    with monkeypatch.context() as patch:
        interrupted(Interrupter(signal.SIGINT, 1), patch)
        with pytest.raises(KeyboardInterrupt):
            train(toy_store, asked, tmp_path)
    state = RunFolder.of(tmp_path, asked[0]).path / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(RunDamaged, match=r"state\.pt cannot be read .*: delete it"):
        train(toy_store, asked, tmp_path)
    state.unlink()
    (folder,) = train(toy_store, asked, tmp_path)
    assert read_run(folder).results.complete


# --- the command, in processes that are killed ---------------------------------------------------


def command(cache: Path, runs: Path, epochs: int, *more: str) -> list[str]:
    chosen = {**SETTINGS, "epochs": epochs}
    settings = [part for name, value in chosen.items() for part in ("--set", f"{name}={value}")]
    paths = ("--cache", str(cache), "--runs", str(runs))
    return [sys.executable, "-W", "error", "-m", "avcil", "train", *paths, *settings, *more]


def start(arguments: Sequence[str], pause_s: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments,
        env={**os.environ, SECONDS_BETWEEN: str(pause_s)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def epochs_logged(runs: Path) -> int:
    """Count the epochs of all runs below a folder."""
    return sum(len(path.read_text().splitlines()) for path in runs.rglob("metrics.jsonl"))


def wait_for_epoch(process: subprocess.Popen[str], runs: Path, epoch: int) -> None:
    """Wait until so many epochs are trained, or the process is done."""
    while epochs_logged(runs) < epoch and process.poll() is None:
        time.sleep(0.001)


def wait_for_run(process: subprocess.Popen[str], runs: Path, method: str) -> Path:
    """Wait until a run of this method has begun; others may be ahead of it, or done."""
    while not (begun := list(runs.rglob(f"{method}-*"))) and process.poll() is None:
        time.sleep(0.001)
    (folder,) = begun
    return folder


def finish(arguments: Sequence[str]) -> None:
    process = start(arguments, 30)
    told = process.communicate()[1]
    assert process.returncode == 0, told


def kill(arguments: Sequence[str], runs: Path, chance: random.Random) -> None:
    """Kill a command at a random moment while it trains."""
    code = 0
    while code != -signal.SIGKILL:  # else it was done before
        shutil.rmtree(runs, ignore_errors=True)
        # Half of them write after every step, so that some are killed while they write.
        process = start(arguments, chance.choice([0, 0.1]))
        wait_for_epoch(process, runs, chance.randrange(3 * EPOCHS))
        time.sleep(chance.uniform(0, 0.02))
        process.kill()
        process.communicate()
        code = process.returncode


def kill_and_resume(number: int, cache: Path, runs: Path) -> tuple[bool, dict[str, object]]:
    """Kill a run, finish it, and return whether it had a resume point, and what it came to."""
    arguments = command(cache, runs, EPOCHS)
    kill(arguments, runs, random.Random(number))
    had_state = bool(list(runs.rglob("state.pt")))
    finish(arguments)
    (results,) = runs.rglob("results.json")
    return had_state, leavings(results.parent)


class Full:
    """A tensor that the device has no room for."""

    def to(self, _: torch.device) -> None:
        raise torch.OutOfMemoryError("no memory")


def test_a_full_device_does_not_make_a_file_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the user would be told to delete what a run can go on from."""
    folder, cpu = RunFolder(tmp_path), torch.device("cpu")
    folder.save_state({"task": 0})
    monkeypatch.setattr(torch, "load", lambda *_, **__: Full().to(cpu))
    monkeypatch.setattr("avcil.incremental.runs.folder.load_file", lambda _: {"weight": Full()})
    with pytest.raises(torch.OutOfMemoryError):
        folder.load_state(0, cpu)
    with pytest.raises(torch.OutOfMemoryError):
        folder.weights(0, cpu)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_runs_killed_at_random_moments_end_as_one_left_alone(
    toy_cache: Path, toy_store: FeatureStore, tmp_path: Path
) -> None:
    (whole,) = train(toy_store, configs(toy_store, epochs=EPOCHS), tmp_path / "whole")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ends = pool.map(
            lambda number: kill_and_resume(number, toy_cache, tmp_path / str(number)), range(KILLS)
        )
        states, left = zip(*ends, strict=True)
    assert sum(states) >= KILLS // 4
    expected = leavings(whole)
    assert [number for number in range(KILLS) if left[number] != expected] == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_parallel_runs_and_the_same_command_finishes_them(
    toy_cache: Path, tmp_path: Path, number: signal.Signals
) -> None:
    def arguments(runs: Path, parallel: str) -> list[str]:
        more = ("--method", "guided,finetune", "--parallel", parallel)
        return command(toy_cache, runs, 150, *more)

    finish(arguments(tmp_path / "whole", "1"))
    process = start(arguments(tmp_path / "cut", "2"), 30)
    wait_for_epoch(process, tmp_path / "cut", 20)
    os.killpg(process.pid, number)
    told = process.communicate()[1].splitlines()
    assert process.returncode == 130
    assert told[-1].startswith("interrupted:")
    assert list((tmp_path / "cut").rglob("state.pt"))
    finish(arguments(tmp_path / "cut", "2"))
    first, second = (
        [leavings(path.parent) for path in sorted((tmp_path / runs).rglob("results.json"))]
        for runs in ("whole", "cut")
    )
    assert first == second


@pytest.mark.slow
def test_a_killed_process_loses_its_run_alone(toy_cache: Path, tmp_path: Path) -> None:
    more = ("--method", "guided,finetune", "--parallel", "2")
    process = start(command(toy_cache, tmp_path, 100, *more), 30)
    folder = wait_for_run(process, tmp_path, "guided")
    wait_for_epoch(process, folder, 20)
    os.kill(json.loads((folder / ".lock").read_text())["pid"], signal.SIGKILL)
    told = process.communicate()[1]
    assert process.returncode == 1
    assert f"the process that trained {folder} ended with SIGKILL" in told
    (other,) = tmp_path.rglob("finetune-*")
    assert read_run(other).results.complete
    finish(command(toy_cache, tmp_path, 100, *more))
    assert read_run(folder).results.complete


@pytest.mark.slow
def test_a_run_whose_ray_worker_is_killed_goes_on_in_another(
    toy_cache: Path, toy_store: FeatureStore, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'avcil[ray]'")
    (whole,) = train(toy_store, configs(toy_store, epochs=60), tmp_path / "whole")
    process = start(command(toy_cache, tmp_path / "ray", 60, "--engine", "ray"), 0.1)
    wait_for_epoch(process, tmp_path / "ray", 20)
    (lock,) = (tmp_path / "ray").rglob(".lock")
    os.kill(json.loads(lock.read_text())["pid"], signal.SIGKILL)
    told = process.communicate()[1]
    assert process.returncode == 0, told
    assert leavings(lock.parent) == leavings(whole)
