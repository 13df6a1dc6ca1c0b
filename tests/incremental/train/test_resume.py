"""A run that was interrupted ends like one that was not."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import pytest
import torch

from avcil.cache.reader import FeatureStore
from avcil.incremental.config.config import Config
from avcil.incremental.errors import ConfigError, RunDamaged
from avcil.incremental.launch.schedule import train
from avcil.incremental.runs.folder import RunFolder
from avcil.incremental.runs.results import read_metrics, read_run
from avcil.incremental.train.checkpoint import SECONDS_BETWEEN, CheckpointTimer
from avcil.runtime.progress import Bar

Outcome = Callable[[Path], dict[str, object]]


@pytest.fixture(scope="module")
def asked(configure: Callable[..., Config], toy_store: FeatureStore) -> Callable[..., Config]:
    """Configure a run with dropout, so that the random generator matters within an epoch."""
    return lambda method="guided", **settings: configure(
        toy_store, method, **{"epochs": 4, "head.dropout": 0.3, **settings}
    )


@pytest.fixture(scope="module")
def whole(
    asked: Callable[..., Config],
    toy_store: FeatureStore,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Path]:
    """Return the folder of an uninterrupted run of a method, to be read only."""
    runs = tmp_path_factory.mktemp("whole")
    return cache(lambda method: train(toy_store, [asked(method)], runs)[0])


class Interrupter(Bar):
    """Interrupts a run after some epochs: by a signal, or without one at any line of code."""

    def __init__(self, epochs: int, number: signal.Signals | None) -> None:
        self.left, self.number = epochs, number

    def advance(self, amount: int = 1, note: str = "", items: int = 0) -> None:
        self.left -= amount
        if self.left == 0:
            if self.number is None:
                raise KeyboardInterrupt
            signal.raise_signal(self.number)

    def skip(self, amount: int) -> None:
        pass


def interrupt(
    store: FeatureStore,
    config: Config,
    runs: Path,
    epochs: int,
    number: signal.Signals | None = signal.SIGINT,
) -> Path:
    """Train until a run is interrupted after some epochs, and return its checkpoint."""
    bar = nullcontext(Interrupter(epochs, number))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("avcil.incremental.launch.schedule.track", lambda *_: bar)
        with pytest.raises(KeyboardInterrupt):
            train(store, [config], runs)
    return RunFolder.of(runs, config).path / "state.pt"


@pytest.mark.parametrize("epochs", [1, 2, 5, 7, 12])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    toy_store: FeatureStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: Callable[..., Config],
    whole: Callable[[str], Path],
    outcome: Outcome,
    epochs: int,
) -> None:
    monkeypatch.setattr("avcil.incremental.train.checkpoint.CheckpointTimer.due", True)
    interrupt(toy_store, asked(), tmp_path, epochs, None)
    (cut,) = train(toy_store, [asked()], tmp_path)
    assert outcome(cut) == outcome(whole("guided"))
    logged = [(epoch.task, epoch.epoch) for epoch in read_metrics(cut)]
    assert logged == [(task, epoch) for task in range(3) for epoch in range(4)]


def test_a_memory_too_small_for_all_classes_is_the_same_after_a_resume(
    toy_store: FeatureStore, tmp_path: Path, configure: Callable[..., Config]
) -> None:
    config = configure(toy_store, tasks=6, memory=4, epochs=1)
    (whole,) = train(toy_store, [config], tmp_path / "whole")
    assert [len(ids) for ids in read_run(whole).results.exemplars] == [4, 4, 3, 4, 0, 0]
    interrupt(toy_store, config, tmp_path / "cut", 6, None)
    (cut,) = train(toy_store, [config], tmp_path / "cut")
    assert read_run(cut).results.exemplars == read_run(whole).results.exemplars
    assert read_run(cut).results.correct == read_run(whole).results.correct


@pytest.mark.parametrize("method", ["guided", "icarl-nme"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_within_an_epoch_and_loses_no_step(
    toy_store: FeatureStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    asked: Callable[..., Config],
    whole: Callable[[str], Path],
    outcome: Outcome,
    number: signal.Signals,
    method: str,
) -> None:
    for epochs in (1, 2, 4):  # the last in a later task than the second
        state = interrupt(toy_store, asked(method), tmp_path, epochs, number)
        assert state.exists()
        assert "the same command goes on from there" in capsys.readouterr().err
    (cut,) = train(toy_store, [asked(method)], tmp_path)
    assert outcome(cut) == outcome(whole(method))
    assert not state.exists()


def test_tensorboard_shows_every_epoch_once(
    toy_store: FeatureStore, tmp_path: Path, asked: Callable[..., Config]
) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="needs TensorBoard: pip install 'avcil[tensorboard]'",
    )
    for epochs in (2, 3):
        # As after a kill before the first checkpoint: epochs are logged, and trained again.
        interrupt(toy_store, asked(), tmp_path, epochs).unlink()
    (folder,) = train(toy_store, [asked()], tmp_path)
    events = accumulator.EventAccumulator(str(folder)).Reload()
    measured = read_metrics(folder)
    assert [event.step for event in events.Scalars("lr")] == list(range(len(measured)))
    shown = [event.value for event in events.Scalars("loss/ce")]
    assert shown == pytest.approx([epoch.losses["ce"] for epoch in measured])


def test_a_damaged_checkpoint_is_named(
    toy_store: FeatureStore, tmp_path: Path, asked: Callable[..., Config]
) -> None:
    state = interrupt(toy_store, asked(), tmp_path, 1)
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(RunDamaged, match=r"state\.pt cannot be read .*: delete it"):
        train(toy_store, [asked()], tmp_path)
    state.unlink()
    (folder,) = train(toy_store, [asked()], tmp_path)
    assert read_run(folder).results.complete


def test_a_checkpoint_of_another_version_is_named(
    toy_store: FeatureStore, tmp_path: Path, asked: Callable[..., Config]
) -> None:
    state = interrupt(toy_store, asked(), tmp_path, 1)
    stored = torch.load(state, weights_only=True)
    for key in ("task", "network", "random", "finite_steps"):
        torch.save({name: value for name, value in stored.items() if name != key}, state)
        with pytest.raises(RunDamaged, match=r"state\.pt cannot be read .*version: delete it"):
            train(toy_store, [asked()], tmp_path)


class Full:
    """A tensor for which the device has no memory."""

    def to(self, _: torch.device) -> None:
        raise torch.OutOfMemoryError("no memory")


def test_a_full_device_does_not_make_a_file_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the error would ask the user to delete an intact checkpoint."""
    folder, cpu = RunFolder(tmp_path), torch.device("cpu")
    folder.save_state({"task": 0})
    monkeypatch.setattr(torch, "load", lambda *_, **__: Full().to(cpu))
    monkeypatch.setattr("avcil.incremental.runs.folder.load_file", lambda _: {"weight": Full()})
    with pytest.raises(torch.OutOfMemoryError):
        folder.load_state(0, cpu)
    with pytest.raises(torch.OutOfMemoryError):
        folder.weights(0, cpu)


class Clock:
    """A clock that tests set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("cost_s", "pause_s"), [(0.125, 30.0), (0.5, 30.0), (2.0, 100.0)])
def test_checkpoints_pause_for_fifty_times_their_cost(cost_s: float, pause_s: float) -> None:
    clock = Clock()
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
