"""What a command would train, and how long that takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner

from avcil.cache.reader import FeatureStore
from avcil.cli import app
from avcil.incremental.config.config import Config
from avcil.incremental.launch.forecast import forecast
from avcil.incremental.launch.schedule import train


def test_nothing_is_trained_and_every_combination_is_counted(
    toy_cache: Path, tmp_path: Path
) -> None:
    command = f"train --cache {toy_cache} --runs {tmp_path / 'runs'} --set head.width=8 --dry-run"
    sweep = "--tasks 2,3 --set losses.kd=0.3,1 --order-seed 0-2 --seeds 0,1"
    shown = CliRunner().invoke(app, [*command.split(), *sweep.split()])
    assert shown.exit_code == 0, shown.output
    *runs, count, time = shown.stdout.splitlines()
    assert len({*runs}) == 24
    assert count == "24 runs: 0 done, 0 begun, 24 new"
    assert time.startswith("how long they take cannot be estimated: no run of these methods")
    assert not (tmp_path / "runs").exists()


def test_time_is_that_of_runs_of_the_method_on_this_machine(
    toy_store: FeatureStore, configure: Callable[..., Config], tmp_path: Path
) -> None:
    done = configure(toy_store, "finetune", epochs=2)
    longer = configure(toy_store, "finetune", epochs=20)
    other = configure(toy_store, "ssil")
    [folder] = train(toy_store, [done], tmp_path, "cpu")
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps({**results, "seconds": [100.0, 50.0, 50.0]}))
    *_, count, time = forecast(toy_store, [done, longer], tmp_path, "cpu", 1)
    assert count == "2 runs: 1 done, 0 begun, 1 new"
    assert time == "about 33.3 min with 1 at once, estimated from 1 run finished on this machine"
    *_, time = forecast(toy_store, [longer, other], tmp_path, "cpu", 2)
    assert time.startswith("about 16.7 min with 2 at once for 1 of them; no run of the methods of")
    (folder / ".lock").write_text(json.dumps({"pid": 1, "host": "another machine"}))
    *_, time = forecast(toy_store, [longer], tmp_path, "cpu", 1)
    assert time.startswith("how long they take cannot be estimated")


def test_a_run_that_is_done_takes_no_time(
    toy_store: FeatureStore, configure: Callable[..., Config], tmp_path: Path
) -> None:
    done = configure(toy_store, "finetune", epochs=1)
    train(toy_store, [done], tmp_path, "cpu")
    lines = forecast(toy_store, [done], tmp_path, "cpu", None)
    assert lines[-1] == "1 run: 1 done, 0 begun, 0 new"
