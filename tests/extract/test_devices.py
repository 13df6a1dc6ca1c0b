"""Several processes at one cache: the same arrays as one, whoever dies on the way."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from avcil.api.caches import chosen_storage
from avcil.cache.errors import CacheBusy, FingerprintMismatch
from avcil.cache.format.layout import RECORDS
from avcil.cache.samples import write_sample
from avcil.cache.schema import Storage
from avcil.cache.storage.open import open_files
from avcil.cache.verify import verify
from avcil.cache.writer import CacheWriter
from avcil.cli import app
from avcil.extract.datasets import Dataset
from avcil.extract.decode.decoders import decoding_bytes
from avcil.extract.devices import Processes, several
from avcil.extract.encoders import load_encoder
from avcil.extract.errors import EncoderError, EngineError, TooManyFailures, WorkersLost
from avcil.extract.events import Shard, Workers
from avcil.extract.pipeline import Summary, coordinate, extract
from avcil.extract.plan import EncoderChoice, Plan, Settings
from avcil.runtime.cluster import NoCluster
from avcil.runtime.machine import cores
from tests.extract.fakes import assert_equal_caches
from tests.processes import all_end, descendants

SETTINGS = Settings(seconds=2, visual_rate_hz=8, workers=1, shard_clips=2)
TINY = EncoderChoice("tiny", Path("data/encoders"))
TWO = ["cpu", "cpu"]


@pytest.fixture(scope="module")
def local(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("local") / "c"
    extract(dataset, load_encoder("tiny", torch.device("cpu")), path, SETTINGS)
    return path


def run(workers: Workers, plan: Plan) -> Summary:
    return coordinate(workers, plan.dataset, plan.path, plan.settings)


def broken(dataset: Dataset, count: int) -> Dataset:
    """Replace the last clips' files by ones that are not there."""
    gone = [replace(clip, path=Path("gone.mp4")) for clip in dataset.clips[-count:]]
    return replace(dataset, clips=(*dataset.clips[:-count], *gone))


def when_written(path: Path | str, count: int, act: Callable[[], None]) -> threading.Thread:
    """Act in a thread as soon as so many shards are written."""

    def watch() -> None:
        while len(open_files(path).names(RECORDS)) < count:
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_an_encoder_by_name_is_not_the_folder_that_happens_to_have_this_name(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, sent in (("tiny", "tiny"), ("mine", str(tmp_path / "mine"))):
        (tmp_path / name).mkdir()
        encoder = EncoderChoice(name, Path("kept"))
        plan = Plan(dataset=dataset, encoder=encoder, path="c", settings=SETTINGS)
        assert plan.absolute().encoder == EncoderChoice(sent, tmp_path / "kept")


@pytest.mark.slow
def test_gpus_of_one_machine_share_its_cores_and_its_memory(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = list[Plan]()

    def processes(plan: Plan, devices: Sequence[str]) -> Processes:
        plans.append(plan)
        return Processes(plan, ["cpu"] * len(devices))

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr("avcil.extract.devices.Processes", processes)
    plan = Plan(dataset=dataset, encoder=TINY, path=tmp_path / "c", settings=SETTINGS)
    with several(plan, "local", 2, workers=None) as workers:
        run(workers, plan)
    (shared,) = (plan.settings for plan in plans)
    assert shared.workers == max(1, cores() // 2)
    assert decoding_bytes(shared.processes) == decoding_bytes() // 2


@pytest.mark.slow
def test_two_processes_write_the_cache_that_one_writes(
    dataset: Dataset, local: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Plan(dataset=dataset, encoder=TINY, path=tmp_path / "c", settings=SETTINGS)
    summary = run(Processes(plan, TWO), plan)
    assert (summary.clips, summary.encoded, summary.failures) == (24, 24, {})
    told = capsys.readouterr().err
    assert sum(map(int, re.findall(r"cpu \(process [12]\): (\d+) clips", told))) == 24
    assert_equal_caches(plan.path, local)
    assert not verify(plan.path).damages
    assert run(Processes(plan, TWO), plan).encoded == 0


@pytest.mark.slow
def test_a_process_killed_in_the_middle_costs_nothing_but_time(
    dataset: Dataset, local: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Plan(dataset=dataset, encoder=TINY, path=tmp_path / "c", settings=SETTINGS)
    workers = Processes(plan, TWO)
    thread = when_written(plan.path, 1, lambda: os.kill(workers.pid(0) or 0, signal.SIGKILL))
    summary = run(workers, plan)
    thread.join()
    assert "SIGKILL); another one continues" in capsys.readouterr().err
    assert not list((tmp_path / "c").rglob("*.partial"))
    assert summary.failures == {}
    assert_equal_caches(plan.path, local)
    assert not verify(plan.path).damages


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_stays_behind_when_the_coordinator_is_killed(
    dataset: Dataset, local: Path, tmp_path: Path
) -> None:
    plan = Plan(dataset=dataset, encoder=TINY, path=tmp_path / "c", settings=SETTINGS)
    (tmp_path / "plan").write_bytes(pickle.dumps(plan))
    code = (
        "import pickle, sys; from avcil.extract.devices import Processes; "
        "from avcil.extract.pipeline import coordinate; plan = pickle.load(open(sys.argv[1], 'rb'))"
        "; coordinate(Processes(plan, ['cpu', 'cpu']), plan.dataset, plan.path, plan.settings)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "plan")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as run_to_kill:
        while len(open_files(plan.path).names(RECORDS)) < 2:
            assert run_to_kill.poll() is None
            time.sleep(0.01)
        started = descendants(run_to_kill.pid)
        run_to_kill.kill()
    assert len(started) >= 3  # two processes that encode, and those that decode for them
    assert all_end(started)
    assert run(Processes(plan, TWO), plan).failures == {}
    assert_equal_caches(plan.path, local)


@pytest.mark.slow
def test_failures_of_all_processes_count_together(dataset: Dataset, tmp_path: Path) -> None:
    strict = replace(SETTINGS, max_failures=0.1, tolerated_failures=3)
    plan = Plan(dataset=broken(dataset, 6), encoder=TINY, path=tmp_path / "c", settings=strict)
    with pytest.raises(TooManyFailures, match="4 of 24 clips failed"):
        run(Processes(plan, TWO), plan)
    plan = replace(plan, settings=SETTINGS)
    assert len(run(Processes(plan, TWO), plan).failures) == 6
    plan = replace(plan, dataset=dataset, settings=replace(SETTINGS, retry_failed=True))
    again = run(Processes(plan, TWO), plan)
    assert (again.encoded, again.failures) == (6, {})


@pytest.mark.slow
def test_errors_of_a_process_are_the_command_s(
    dataset: Dataset, local: Path, tmp_path: Path
) -> None:
    unknown = EncoderChoice("vgg", tmp_path)
    plan = Plan(dataset=dataset, encoder=unknown, path=tmp_path / "c", settings=SETTINGS)
    with pytest.raises(EncoderError, match="unknown encoder 'vgg'"):
        run(Processes(plan, TWO), plan)
    plan = replace(plan, encoder=TINY, path=local, settings=replace(SETTINGS, seconds=3))
    with pytest.raises(FingerprintMismatch, match=r"seconds 2.* in the cache, 3.* now"):
        run(Processes(plan, TWO), plan)


@pytest.mark.slow
def test_a_second_run_into_the_cache_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    plan = Plan(dataset=dataset, encoder=TINY, path=tmp_path / "c", settings=SETTINGS)
    told: list[str] = []

    def second() -> None:
        with pytest.raises(CacheBusy, match=f"process {os.getpid()}") as caught:
            extract(dataset, load_encoder("tiny", torch.device("cpu")), plan.path, SETTINGS)
        told.append(str(caught.value))

    thread = when_written(plan.path, 1, second)
    run(Processes(plan, TWO), plan)
    thread.join()
    assert told


@pytest.mark.slow
def test_processes_that_end_again_and_again_end_the_run(dataset: Dataset, tmp_path: Path) -> None:
    class Doomed(Processes):
        def give(self, worker: int, shards: Sequence[Shard], writer: CacheWriter) -> None:
            super().give(worker, shards, writer)
            os.kill(self.pid(worker) or 0, signal.SIGKILL)

    plan = Plan(dataset=dataset, encoder=TINY, path=tmp_path / "c", settings=SETTINGS)
    with pytest.raises(WorkersLost, match=r"3 processes ended at shard \d+, the last on cpu"):
        run(Doomed(plan, ["cpu"]), plan)


# --- the command


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--gpus 99", "--gpus 99: this machine has [0-9]+ CUDA devices; give a lower number"),
        ("--gpus 2 --device cpu", "--device cpu is a single device: leave it out with --gpus"),
        ("--engine ray --limit 5", "--limit runs a trial on one device"),
    ],
)
def test_devices_that_cannot_be_had_are_an_error_before_anything_else(
    tmp_path: Path, options: str, message: str
) -> None:
    command = ["extract", "--dataset", "demo", "--data", str(tmp_path), *options.split()]
    shown = CliRunner().invoke(app, command)
    assert isinstance(shown.exception, EngineError), shown.exception
    assert re.search(message, str(shown.exception))
    assert not list(tmp_path.iterdir())


def test_without_the_extra_ray_the_error_says_what_to_install(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if not installed
    table = tmp_path / "clips.csv"
    rows = [f"{clip.path},{clip.label},{clip.split}" for clip in dataset.clips]
    table.write_text("\n".join(["path,label,split", *rows]))
    command = ["extract", "--dataset", "csv", "--splits", str(table), "--engine", "ray"]
    shown = CliRunner().invoke(app, [*command, "--encoder", "tiny", "--data", str(tmp_path)])
    assert isinstance(shown.exception, NoCluster)
    assert str(shown.exception).endswith("pip install 'avcil[ray]'")


def test_of_numbers_and_compression_the_cache_has_the_one_not_given(tmp_path: Path) -> None:
    kept = Storage(numbers="int8", compression="zstd", scales="group")
    path = write_sample(tmp_path / "c", storage=kept)
    assert chosen_storage(path, "int8", None) == kept
    assert chosen_storage(path, None, "zstd") == kept
    assert chosen_storage(path, None, None) is None
    assert chosen_storage(tmp_path / "new", "int8", None) == Storage(numbers="int8")
