"""Runs in processes that are killed or get a signal: the same command finishes them."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from avcil.cache.reader import FeatureStore
from avcil.incremental.config.config import Config
from avcil.incremental.launch.schedule import train
from avcil.incremental.runs.results import read_run
from avcil.incremental.train.checkpoint import SECONDS_BETWEEN

KILLS = 20
EPOCHS = 10
DROPOUT = {"head.dropout": 0.3}
"""With it, the state of the random generator matters within an epoch."""

Command = Callable[..., list[str]]
Process = Popen[str] | BaseProcess
Outcome = Callable[[Path], dict[str, object]]
pytestmark = pytest.mark.slow


@pytest.fixture
def command(small: dict[str, object], toy_cache: Path) -> Command:
    """Return the arguments of `avcil`: `command(runs, epochs, "--parallel", "2")`."""

    def arguments(runs: Path, epochs: int, *more: str) -> list[str]:
        chosen = {**small, **DROPOUT, "epochs": epochs}
        settings = [part for name, value in chosen.items() for part in ("--set", f"{name}={value}")]
        paths = ("--cache", str(toy_cache), "--runs", str(runs))
        return ["train", *paths, *settings, *more]

    return arguments


def start(arguments: Sequence[str], pause_s: float) -> Popen[str]:
    return Popen(
        [sys.executable, "-W", "error", "-m", "avcil", *arguments],
        env={**os.environ, SECONDS_BETWEEN: str(pause_s)},
        stdout=PIPE,
        stderr=PIPE,
        text=True,
        start_new_session=True,
    )


FORKS = multiprocessing.get_context("forkserver")
"""Starts processes in which everything is imported already, which takes seconds."""
FORKS.set_forkserver_preload(
    ["pytest", "torch._dynamo", "torch.utils.tensorboard"]
    + [f"avcil.{name}" for name in ("cli", "cache.reader", "incremental.launch.schedule")]
)


def fork(arguments: Sequence[str], pause_s: float, errors: Path) -> BaseProcess:
    """Start a command as `start` does, but with PyTorch imported; its output goes into a file."""
    process = FORKS.Process(target=_run_command, args=(arguments, pause_s, errors))
    process.start()
    return process


def _run_command(arguments: Sequence[str], pause_s: float, errors: Path) -> None:
    from avcil.__main__ import main

    with errors.open("w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    os.environ[SECONDS_BETWEEN] = str(pause_s)
    warnings.simplefilter("error")
    sys.argv = ["avcil", *arguments]
    main()


def epochs_logged(runs: Path) -> int:
    """Count the epochs of all runs below a folder."""
    return sum(len(path.read_text().splitlines()) for path in runs.rglob("metrics.jsonl"))


def is_over(process: Process) -> bool:
    return process.poll() is not None if isinstance(process, Popen) else not process.is_alive()


def wait_for_epoch(process: Process, runs: Path, epoch: int) -> None:
    """Wait until so many epochs are trained, or the process is done."""
    while epochs_logged(runs) < epoch and not is_over(process):
        time.sleep(0.001)


def wait_for_run(process: Popen[str], runs: Path, method: str) -> Path:
    """Wait until a run of this method has begun; others may be ahead of it, or done."""
    while not (begun := list(runs.rglob(f"{method}-*"))) and process.poll() is None:
        time.sleep(0.001)
    (folder,) = begun
    return folder


def finish(arguments: Sequence[str]) -> None:
    process = start(arguments, 30)
    errors = process.communicate()[1]
    assert process.returncode == 0, errors


def kill(arguments: Sequence[str], runs: Path, errors: Path, chance: random.Random) -> None:
    """Kill a command at a random moment while it trains."""
    code: int | None = 0
    while code != -signal.SIGKILL:  # else it was done before
        shutil.rmtree(runs, ignore_errors=True)
        # Half of them write after every step, so that some are killed while they write.
        process = fork(arguments, chance.choice([0, 0.1]), errors)
        wait_for_epoch(process, runs, chance.randrange(3 * EPOCHS))
        time.sleep(chance.uniform(0, 0.02))
        process.kill()
        process.join()
        code = process.exitcode


@pytest.mark.timeout(900)
def test_runs_killed_at_random_moments_end_as_one_left_alone(
    toy_store: FeatureStore,
    tmp_path: Path,
    configure: Callable[..., Config],
    command: Command,
    outcome: Outcome,
) -> None:
    errors = tmp_path / "errors"

    def kill_and_resume(number: int) -> tuple[bool, dict[str, object]]:
        """Return whether the killed run had a checkpoint, and the outcome once it is finished."""
        runs = tmp_path / str(number)
        arguments = command(runs, EPOCHS)
        kill(arguments, runs, errors, random.Random(number))
        had_state = bool(list(runs.rglob("state.pt")))
        process = fork(arguments, 30, errors)
        process.join()
        assert process.exitcode == 0, errors.read_text()
        (results,) = runs.rglob("results.json")
        return had_state, outcome(results.parent)

    whole = train(toy_store, [configure(toy_store, epochs=EPOCHS, **DROPOUT)], tmp_path / "whole")
    states, left = zip(*map(kill_and_resume, range(KILLS)), strict=True)
    assert sum(states) >= KILLS // 4
    expected = outcome(whole[0])
    assert [number for number in range(KILLS) if left[number] != expected] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_parallel_runs_and_the_same_command_finishes_them(
    tmp_path: Path, command: Command, outcome: Outcome, number: signal.Signals
) -> None:
    def arguments(runs: Path, parallel: str) -> list[str]:
        more = ("--method", "guided,finetune", "--parallel", parallel)
        return command(runs, 80, *more)

    finish(arguments(tmp_path / "whole", "1"))
    process = start(arguments(tmp_path / "cut", "2"), 30)
    wait_for_epoch(process, tmp_path / "cut", 20)
    os.killpg(process.pid, number)
    errors = process.communicate()[1].splitlines()
    assert process.returncode == 130
    assert errors[-1].startswith("interrupted:")
    assert list((tmp_path / "cut").rglob("state.pt"))
    finish(arguments(tmp_path / "cut", "2"))
    first, second = (
        [outcome(path.parent) for path in sorted((tmp_path / runs).rglob("results.json"))]
        for runs in ("whole", "cut")
    )
    assert first == second


def test_a_killed_process_loses_its_run_alone(tmp_path: Path, command: Command) -> None:
    more = ("--method", "guided,finetune", "--parallel", "2")
    process = start(command(tmp_path, 100, *more), 30)
    folder = wait_for_run(process, tmp_path, "guided")
    wait_for_epoch(process, folder, 20)
    os.kill(json.loads((folder / ".lock").read_text())["pid"], signal.SIGKILL)
    errors = process.communicate()[1]
    assert process.returncode == 1
    assert f"the process that trained {folder} ended with SIGKILL" in errors
    (other,) = tmp_path.rglob("finetune-*")
    assert read_run(other).results.complete
    finish(command(tmp_path, 100, *more))
    assert read_run(folder).results.complete


def test_a_run_whose_ray_worker_is_killed_goes_on_in_another(
    toy_store: FeatureStore,
    tmp_path: Path,
    configure: Callable[..., Config],
    command: Command,
    outcome: Outcome,
) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'avcil[ray]'")
    (whole,) = train(toy_store, [configure(toy_store, epochs=60, **DROPOUT)], tmp_path / "whole")
    process = start(command(tmp_path / "ray", 60, "--engine", "ray"), 0.1)
    wait_for_epoch(process, tmp_path / "ray", 20)
    (lock,) = (tmp_path / "ray").rglob(".lock")
    os.kill(json.loads(lock.read_text())["pid"], signal.SIGKILL)
    errors = process.communicate()[1]
    assert process.returncode == 0, errors
    assert outcome(lock.parent) == outcome(whole)
