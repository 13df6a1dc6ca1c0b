"""`avcil extract`: its defaults, its exit status, and what it says."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from avcil.cache.reader import FeatureStore
from avcil.cli import app
from avcil.errors import AvcilError
from avcil.extract.datasets import Dataset

RUN = CliRunner()


MakeClips = Callable[[int], Path]


@pytest.fixture
def clips(dataset: Dataset, tmp_path: Path) -> MakeClips:
    """Give a function that fills a folder with some clips of two classes, and returns it."""

    def make(count: int) -> Path:
        for number in range(count):
            path = tmp_path / "videos" / "train" / f"class {number % 2}" / f"{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(dataset.clips[number % len(dataset.clips)].path, path)
        return tmp_path / "videos"

    return make


def folder_command(videos: Path, cache: Path) -> list[str]:
    options = "--encoder tiny --seconds 2 --rate 8 --workers 1 --dataset folder"
    return ["extract", *options.split(), "--videos", str(videos), "--cache", str(cache)]


def test_one_broken_clip_gives_status_3_and_its_reason_whenever_it_is_tried(
    clips: MakeClips, tmp_path: Path
) -> None:
    videos = clips(4)
    (videos / "train" / "class 0" / "bad.mp4").write_text("<html>")
    command = folder_command(videos, tmp_path / "cache")
    for new, options in ((4, []), (0, []), (0, ["--retry-failed"])):
        result = RUN.invoke(app, [*command, *options])
        assert result.exit_code == 3
        assert f"4 of 5 clips are in {tmp_path / 'cache'} ({new} new" in result.stdout
        assert "failed: train/class 0/bad.mp4: not a readable media file" in result.stdout
    assert FeatureStore.open(tmp_path / "cache").encoding.encoder == "tiny"


def test_mended_clips_are_tried_again_when_asked_for_and_no_others(
    clips: MakeClips, tmp_path: Path
) -> None:
    videos, cache = clips(12), tmp_path / "cache"
    bad = videos / "train" / "class 0" / "0.mp4"
    good = bad.read_bytes()
    bad.write_text("<html>")
    command = folder_command(videos, cache)
    shown = RUN.invoke(app, command).stdout
    assert "after fixing them, run the same command with --retry-failed" in shown
    bad.write_bytes(good)
    assert RUN.invoke(app, command).exit_code == 3, "without the option nothing is tried again"
    others = {path: path.stat().st_mtime_ns for path in cache.glob("*/c/1/0/0")}
    again = RUN.invoke(app, [*command, "--retry-failed"])
    assert again.exit_code == 0
    assert "12 of 12 clips are in" in again.stdout
    assert "(1 new" in again.stdout
    assert others == {path: path.stat().st_mtime_ns for path in others} != {}
    assert len(FeatureStore.open(cache).rows()) == 12


def test_storage_is_chosen_once_and_kept_while_another_precision_is_refused(
    clips: MakeClips, tmp_path: Path
) -> None:
    command = folder_command(clips(2), tmp_path / "cache")
    in_bf16 = [*command, "--precision", "bf16"]
    for options in (["--numbers", "int8", "--compression", "zstd"], []):
        assert RUN.invoke(app, [*in_bf16, *options]).exit_code == 0
        storage = FeatureStore.open(tmp_path / "cache").header.storage
        assert (storage.numbers, storage.compression) == ("int8", "zstd")
    refused = RUN.invoke(app, [*in_bf16, "--numbers", "float16", "--compression", "zstd"])
    assert "numbers 'int8' in the cache, 'float16' now" in str(refused.exception)
    refused = RUN.invoke(app, command)
    assert "precision 'bf16' in the cache, 'fp32' now" in str(refused.exception)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--dataset kinetics", r"unknown data set 'kinetics'; choose one of demo"),
        ("--dataset folder --videos x --encoder tiny", r"no folder of clips at x"),
        ("--dataset demo --device tpu9", r"unknown device 'tpu9'; choose auto, cpu"),
        ("--dataset demo --device meta", r"unknown device 'meta'; choose auto, cpu"),
    ],
)
def test_wrong_input_is_an_error_of_one_line(options: str, message: str) -> None:
    result = RUN.invoke(app, ["extract", *options.split()])
    assert isinstance(result.exception, AvcilError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)


def test_an_unknown_encoder_is_refused_before_a_cache_is_made(
    clips: MakeClips, tmp_path: Path
) -> None:
    options = ["--dataset", "folder", "--videos", str(clips(1)), "--encoder", "vgg"]
    result = RUN.invoke(app, ["extract", *options, "--data", str(tmp_path / "data")])
    assert "unknown encoder 'vgg'; choose one of sam-audio, pe-av" in str(result.exception)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("path", "text"),
    [("s3:///c", "names no bucket: write s3://BUCKET/PATH"), ("afile/x", "Not a directory")],
)
def test_a_cache_that_cannot_be_written_is_an_error_of_one_line(
    clips: MakeClips, tmp_path: Path, path: str, text: str
) -> None:
    videos = clips(1)
    (tmp_path / "afile").touch()
    cache = path if "://" in path else str(tmp_path / path)
    result = RUN.invoke(app, [*folder_command(videos, tmp_path)[:-1], cache])
    assert isinstance(result.exception, AvcilError), result.exception
    assert text in str(result.exception)


def test_a_share_of_failures_that_is_none_is_wrong_usage() -> None:
    result = RUN.invoke(app, ["extract", "--dataset", "demo", "--max-failures", "many"])
    assert result.exit_code == 2
    assert "write 5% or 0.05" in result.stderr


def test_a_trial_forecasts_the_rest_and_ends_with_a_status_of_its_own(
    clips: MakeClips, tmp_path: Path
) -> None:
    videos, cache = clips(12), tmp_path / "cache"
    trial = RUN.invoke(app, [*folder_command(videos, cache), "--limit", "10"])
    assert trial.exit_code == 4, trial.exception
    assert f"8 of 12 clips are in {cache} (10 new" in trial.stdout
    forecast = r"trial: [\d.]+ clips/s; the remaining 4 clips will take about \d+ s and 0\.\d MB \("
    assert re.search(forecast, trial.stdout)
    rest = RUN.invoke(app, folder_command(videos, cache))
    assert rest.exit_code == 0
    assert f"12 of 12 clips are in {cache} (4 new" in rest.stdout


def test_an_unknown_precision_is_wrong_usage() -> None:
    result = RUN.invoke(app, ["extract", "--dataset", "demo", "--precision", "int4"])
    assert result.exit_code == 2
    assert "'int4' is not one of 'auto'" in result.stderr


def group_ends(group: int) -> bool:
    """Tell whether no process of a group is left after some seconds."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.5, 4.0, 6.0])
def test_ctrl_c_ends_all_processes_without_a_traceback(
    clips: MakeClips, tmp_path: Path, seconds: float
) -> None:
    """Ctrl-C goes to every process of the terminal, whatever it is doing."""
    videos = clips(200)
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # as by hand
        "from avcil.__main__ import main; print('up', flush=True); main()"
    )
    command = [sys.executable, "-c", code, *folder_command(videos, tmp_path / "cache")]
    run = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert run.stdout
    assert run.stdout.readline() == "up\n"
    time.sleep(seconds)
    os.killpg(run.pid, signal.SIGINT)
    _, told = run.communicate(timeout=30)
    assert run.returncode == 130, told
    assert "Traceback" not in told
    assert group_ends(run.pid)
    if (tmp_path / "cache").exists():
        assert "shards are written; run again to continue" in told


def test_help_has_an_example() -> None:
    result = RUN.invoke(app, ["extract", "--help"], env={"COLUMNS": "200"})
    assert "avcil extract --dataset demo" in result.stdout


def arrays(path: Path) -> list[np.ndarray]:
    store = FeatureStore.open(path)
    content = store.load(store.rows())
    return [content.visual, content.audio, content.labels]


@pytest.mark.slow
def test_the_demo_killed_at_any_moment_ends_in_the_same_cache(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "avcil", "extract", "--dataset", "demo"]
    environment = os.environ | {"AVCIL_DATA": str(tmp_path / "whole")}
    subprocess.run(command, env=environment, check=True)
    environment["AVCIL_DATA"] = str(tmp_path / "killed")
    moments = random.Random(1)
    for _ in range(4):
        run = subprocess.Popen(command, env=environment)
        time.sleep(moments.uniform(2, 20))
        run.send_signal(signal.SIGKILL)
        run.wait()
    last = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert "400 of 400 clips" in last.stdout
    caches = [tmp_path / name / "demo" / "features.zarr" for name in ("whole", "killed")]
    for whole, killed in zip(*map(arrays, caches), strict=True):
        assert np.array_equal(whole, killed)
