"""Decoding processes: shared memory, back-pressure, and nothing left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from avcil.cache.schema import Failure
from avcil.extract.decode.decoders import Decoders
from avcil.extract.decode.media import Sampling, decode
from avcil.extract.decode.shared_memory import receive
from avcil.extract.demo import DemoClip, draw_clip
from avcil.extract.demo.mp4 import write_mp4
from avcil.extract.encoders.base import Media

SAMPLING = Sampling(seconds=2, visual_rate_hz=8, sample_rate=16_000)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "clip.mp4"
    frames, waveform = draw_clip(DemoClip("train", 1, 0), seed=0)
    write_mp4(path, frames, 8, waveform, 16_000)
    return path


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes that are started from here import this module, however pytest was started."""
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[3]), *sys.path])


class Counted:
    """A path that leaves a file in a folder when a process receives it."""

    def __init__(self, path: Path, folder: Path, number: int) -> None:
        self.path, self.folder, self.number = path, folder, number

    def __reduce__(self) -> tuple[object, tuple[Path, Path, int]]:
        return _count, (self.path, self.folder, self.number)


def _count(path: Path, folder: Path, number: int) -> Path:
    (folder / str(number)).touch()
    return path


def counted(clip: Path, folder: Path, count: int) -> list[Path]:
    return [cast(Path, Counted(clip, folder, number)) for number in range(count)]


def started(folder: Path, count: int) -> list[int]:
    """Return which files were given out, once there are `count` of them and for a while longer."""
    until = time.monotonic() + 20
    while len(list(folder.iterdir())) < count and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.3)
    return sorted(int(path.name) for path in folder.iterdir())


class Reporting:
    """A path that writes about the process that receives it, once for each attempt."""

    def __init__(self, path: Path, folder: Path, number: int, kills: int = 0) -> None:
        self.arguments = path, folder, number, kills

    def __reduce__(self) -> tuple[object, tuple[Path, Path, int, int]]:
        return _report, self.arguments


def _report(path: Path, folder: Path, number: int, kills: int) -> Path:
    """Write when this attempt began and ended, and its process; or kill it."""
    begin, attempt = time.monotonic(), len(list(folder.glob(f"{number}-*")))
    file = folder / f"{number}-{attempt}"
    file.touch()
    if attempt < kills:
        signal.raise_signal(signal.SIGKILL)
    time.sleep(0.1)
    file.write_text(f"{begin} {time.monotonic()} {os.getpid()}")
    return path


def reports(folder: Path) -> dict[str, list[float]]:
    """Return begin, end and process of each attempt that was not killed."""
    texts = {path.name: path.read_text() for path in folder.iterdir()}
    return {name: [float(word) for word in text.split()] for name, text in texts.items() if text}


def reporting(clip: Path, folder: Path, kills: Sequence[int]) -> list[Path]:
    return [cast(Path, Reporting(clip, folder, n, each)) for n, each in enumerate(kills)]


def assert_same(decoded: object, expected: Media) -> None:
    assert isinstance(decoded, Media)
    for name in ("frames", "frame_index", "waveform"):
        array, other = getattr(decoded, name), getattr(expected, name)
        assert np.array_equal(array, other)
        assert array.flags.writeable
        assert array.flags.aligned


@pytest.mark.skipif(sys.platform != "linux", reason="memfd")
def test_clips_come_through_shared_memory_as_they_are_and_outlive_their_process(
    clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = decode(clip, SAMPLING)
    with Decoders(2, SAMPLING) as decoders:
        kept = list(decoders.decode([clip] * 6))
    for decoded in kept:
        assert_same(decoded, expected)
    maps = Path("/proc/self/maps")
    assert maps.read_text().count("memfd:avcil-clip") == 6
    del kept, decoded
    assert "memfd:avcil-clip" not in maps.read_text()
    assert capsys.readouterr().err == ""


@pytest.fixture
def no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes that start from here on have no room for shared memory."""
    (tmp_path / "sitecustomize.py").write_text(
        "import errno, os\n"
        "def full(*_):\n"
        "    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "os.memfd_create = full\n"
    )
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path), before])))


@pytest.mark.usefixtures("no_room")
def test_clips_come_through_the_pipe_where_memory_cannot_be_shared(
    clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = decode(clip, SAMPLING)
    with Decoders(1, SAMPLING) as decoders:
        for decoded in decoders.decode([clip] * 2):
            assert_same(decoded, expected)
    told = capsys.readouterr().err
    assert told.count("frames go through pipes, which is slower") == 1


def test_files_are_decoded_ahead_while_the_caller_is_busy_but_not_without_bound(
    clip: Path, tmp_path: Path
) -> None:
    with Decoders(2, SAMPLING) as decoders:
        next(decoders.decode(counted(clip, tmp_path, 20)))
        assert started(tmp_path, 5) == [0, 1, 2, 3, 4]


def test_large_clips_are_not_decoded_further_ahead_than_memory_allows(
    clip: Path, tmp_path: Path
) -> None:
    one = decode(clip, SAMPLING).frames.nbytes
    with Decoders(2, SAMPLING, memory_bytes=one) as decoders:
        results = decoders.decode(counted(clip, tmp_path, 20))
        for _ in range(3):
            next(results)
        assert started(tmp_path, 4) == [0, 1, 2, 3]


def test_the_bound_on_memory_holds_before_the_size_of_any_clip_is_known(
    clip: Path, tmp_path: Path
) -> None:
    with Decoders(3, SAMPLING, memory_bytes=1) as decoders:
        results = decoders.decode(counted(clip, tmp_path, 20))
        next(results)
        assert started(tmp_path, 2) == [0, 1]


def test_a_clip_may_be_as_long_as_the_nominal_length_however_short_the_first_one_is(
    clip: Path, tmp_path: Path
) -> None:
    short = Sampling(seconds=200, visual_rate_hz=8, sample_rate=16_000, least_share=0)
    whole = decode(clip, short).frames.nbytes
    with Decoders(3, short, memory_bytes=50 * whole) as decoders:
        results = decoders.decode(counted(clip, tmp_path, 20))
        next(results)
        assert started(tmp_path, 2) == [0, 1]


@pytest.mark.parametrize("wrong", [5, None])
def test_an_exception_is_a_failure_of_the_clip_and_costs_no_process(
    clip: Path, tmp_path: Path, wrong: object
) -> None:
    good = reporting(clip, tmp_path, [0, 0])
    with Decoders(1, SAMPLING) as decoders:
        first, failure, last = decoders.decode([good[0], cast(Path, wrong), good[1]])
    assert isinstance(first, Media)
    assert isinstance(last, Media)
    kind = type(wrong).__name__
    reason = f"AttributeError: '{kind}' object has no attribute 'exists'"
    assert failure == Failure(f"decoding failed ({reason})")
    assert len({process for _, _, process in reports(tmp_path).values()}) == 1


class Threads:
    """A path that writes into itself on how many threads the process that receives it computes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return _write_threads, (self.path,)


def _write_threads(path: Path) -> Path:
    import torch

    path.write_text(f"{torch.get_num_threads()}")
    return path


def test_each_process_computes_on_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with Decoders(1, SAMPLING) as decoders:
        list(decoders.decode([cast(Path, Threads(tmp_path / "threads"))]))
    assert (tmp_path / "threads").read_text() == "1"


def test_a_clip_whose_process_is_killed_is_tried_once_more_alone(
    clip: Path, tmp_path: Path
) -> None:
    kills = [0, 1, 0, 0, 2, 0, 0]
    with Decoders(3, SAMPLING) as decoders:
        results = list(decoders.decode(reporting(clip, tmp_path, kills)))
    assert [type(result) for result in results] == [Failure if n == 2 else Media for n in kills]
    assert results[4] == Failure(
        "decoding crashed (SIGKILL), also alone: there may be too little memory"
    )
    spans = {name: (begin, end) for name, (begin, end, _) in reports(tmp_path).items()}
    begin, end = spans.pop("1-1")
    assert len(spans) == 5
    assert all(other[1] <= begin or end <= other[0] for other in spans.values())


def test_processes_stay_for_the_next_files(clip: Path, tmp_path: Path) -> None:
    with Decoders(1, SAMPLING) as decoders:
        for paths in ([0], [], [0, 0]):
            folder = tmp_path / str(len(paths))
            folder.mkdir()
            assert len(list(decoders.decode(reporting(clip, folder, paths)))) == len(paths)
    found = [reports(tmp_path / name) for name in "12"]
    assert len({each[2] for report in found for each in report.values()}) == 1


def test_files_that_are_no_longer_wanted_do_not_come_out_later(clip: Path) -> None:
    missing = clip.with_name("missing.mp4")
    with Decoders(2, SAMPLING) as decoders:
        assert isinstance(next(decoders.decode([clip] * 20)), Media)
        assert list(decoders.decode([missing] * 3)) == [Failure("file is missing")] * 3


def test_an_error_of_the_thread_reaches_the_caller(clip: Path) -> None:
    unsendable = cast(Path, lambda: None)
    with Decoders(1, SAMPLING) as decoders, pytest.raises(Exception, match=r"pickle"):
        list(decoders.decode([clip, unsendable]))


def test_a_process_that_ends_in_the_middle_of_a_clip_has_ended() -> None:
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        os.write(theirs.fileno(), struct.pack("!i", 1000) + b"the rest never comes")
        theirs.close()
        with pytest.raises(EOFError):
            receive(ours)


@pytest.mark.parametrize("begun", [False, True])
def test_an_interrupt_while_the_thread_starts_is_no_other_error(
    clip: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        if begun:
            start(thread)
        raise KeyboardInterrupt

    def interrupt() -> None:
        with Decoders(1, SAMPLING) as decoders:
            monkeypatch.setattr(threading.Thread, "start", interrupted)
            next(decoders.decode([clip] * 8))

    with pytest.raises(KeyboardInterrupt):
        interrupt()
