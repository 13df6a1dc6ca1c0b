"""A folder of forty clips through the command: 28 odd but good ones, 12 broken in as many ways.

What a good clip's tokens must be is computed from the pictures and the sound that were written into
its file, and not by decoding it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchaudio.functional import resample
from typer.testing import CliRunner

from avcil.cache.reader import FeatureStore
from avcil.cli import app
from avcil.extract.decode.images import resize
from avcil.extract.encoders import load_encoder
from avcil.extract.encoders.base import Media
from tests.extract.odd_files import GOOD, Kind, every, flipped, halved, without_index, write

RATE_HZ, SECONDS, SAMPLE_RATE = 8, 2.0, 16_000
PATIENCE_S = 30.0  # a busy machine may need many seconds to start a process that decodes


def expected(kind: Kind) -> Media:
    """Return what a perfect decoder would give."""
    sound = np.pad(kind.sound(), ((0, 0), (kind.lead, 0)))
    wave = resample(torch.from_numpy(sound), kind.rate, SAMPLE_RATE).mean(dim=0).numpy()
    wave = wave[: round(SECONDS * SAMPLE_RATE)]
    times = np.array(kind.times_s) + kind.lead / kind.rate
    tokens = np.arange(round(len(wave) / SAMPLE_RATE * RATE_HZ)) / RATE_HZ
    earlier, later = times[:-1], times[1:]
    changes = np.append(np.maximum((earlier + later) / 2, later - 0.1), np.inf)
    index = (np.round(changes[None], 9) < np.round(tokens[:, None], 9)).sum(axis=1)
    upright = np.rot90(np.stack(list(kind.pictures())), -kind.quarter_turns, axes=(1, 2))
    resizing = load_encoder("tiny", torch.device("cpu")).resizing
    assert resizing is not None
    frames = np.empty((len(upright), resizing.height, resizing.width, 3), np.uint8)
    for image, into in zip(upright, frames, strict=True):
        resize(np.ascontiguousarray(image), resizing, into)
    return Media(frames, index, wave)


USUAL = Kind(name="any", number=40)
# So large that decoding takes half a second, in which its process can be found.
LARGE = Kind(name="large.avi", video="mjpeg", audio="pcm_s16le", pixels="yuvj420p", height=1080,
             width=1920, times_s=every(2, 30))  # fmt: skip
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty.mp4": (Path.touch, "file is empty"),
    "page.mp4": (
        lambda path: path.write_text("<html><body>404 Not Found</body></html>" * 200),
        "not a readable media file (Invalid data found when processing input)",
    ),
    "cut.mp4": (lambda path: halved(write(path, USUAL)), "not a readable media file (Inv"),
    "cut, index in front.mp4": (lambda path: halved(write(path, USUAL)), "only "),
    "cut.webm": (lambda path: halved(write(path, replace(GOOD[2], number=41))), "only "),
    "flipped.mp4": (lambda path: flipped(write(path, USUAL)), "only "),
    "no index.mp4": (lambda path: without_index(write(path, USUAL)), "not a readable media file ("),
    "mute.mp4": (lambda path: write(path, USUAL, audio=False), "no audio track"),
    "radio.mp4": (lambda path: write(path, USUAL, video=False), "no video track"),
    "pipe.mp4": (os.mkfifo, "not a regular file"),
    "crash.avi": (lambda path: write(path, LARGE), "decoding crashed (SIGSEGV)"),
    "hang.avi": (lambda path: write(path, LARGE), f"decoding takes longer than {PATIENCE_S:g} s"),
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty files; what belongs to a test set is a fifth of them."""
    folder = tmp_path_factory.mktemp("videos")
    for split in ("train", "test"):
        (folder / split / "some class").mkdir(parents=True)
    for kind in GOOD:
        write(folder / place(kind.name), kind)
    for name, (make, _) in BROKEN.items():
        source = folder / place("crash.avi")
        if name == "hang.avi":
            (folder / place(name)).write_bytes(source.read_bytes())
        else:
            make(folder / place(name))
    return folder


def place(name: str) -> str:
    """Return the id of a clip."""
    return f"{'test' if len(name) % 5 == 0 else 'train'}/some class/{name}"


def files_open_in_children() -> Iterator[tuple[int, str]]:
    """Give the processes that this one has started, and the names of the files they have open."""
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in map(int, children.read_text().split()):
            for handle in Path(f"/proc/{pid}/fd").glob("*"):
                yield pid, handle.readlink().name


class Misfortune:
    """Sends a signal to the process that decodes a file, once for each file."""

    def __init__(self, signals: dict[str, signal.Signals]) -> None:
        self._waiting, self._over = dict(signals), threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while self._waiting and not self._over.is_set():
            try:
                for pid, name in files_open_in_children():
                    if name in self._waiting:
                        os.kill(pid, self._waiting.pop(name))
            except OSError:  # that process, or its file, is gone
                continue
            time.sleep(0.002)


def run(videos: Path, cache: Path, *options: str) -> tuple[int, str]:
    """Run the command as a user does; return its exit status and what it printed."""
    command = f"extract --dataset folder --encoder tiny --seconds {SECONDS} --rate {RATE_HZ}"
    command += f" --workers 2 --patience {PATIENCE_S}"
    arguments = [*command.split(), "--videos", str(videos), "--cache", str(cache), *options]
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout


@pytest.fixture(scope="module")
def extracted(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    cache = tmp_path_factory.mktemp("cache") / "features.zarr"
    with Misfortune({"crash.avi": signal.SIGSEGV, "hang.avi": signal.SIGSTOP}):
        status, shown = run(videos, cache)
    return cache, status, shown


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


def test_of_forty_clips_28_have_tokens_and_12_a_reason_also_when_run_again(
    videos: Path, extracted: tuple[Path, int, str]
) -> None:
    assert (len(GOOD), len(BROKEN)) == (28, 12)
    cache, status, shown = extracted
    assert status == 3
    assert f"28 of 40 clips are in {cache} (28 new" in shown
    first = FeatureStore.open(cache)
    assert first.failures.keys() == {place(name) for name in BROKEN}
    assert len(first.rows()) == 28
    status, shown = run(videos, cache)
    assert status == 3
    assert f"28 of 40 clips are in {cache} (0 new" in shown
    for name, (_, reason) in BROKEN.items():
        assert f"failed: {place(name)}: {reason}" in shown
    assert FeatureStore.open(cache).failures == first.failures


@pytest.mark.parametrize("name", BROKEN)
def test_the_reason_of_each_broken_clip_is_kept(
    extracted: tuple[Path, int, str], name: str
) -> None:
    store = FeatureStore.open(extracted[0])
    assert store.failures[place(name)].startswith(BROKEN[name][1])


@pytest.mark.parametrize("kind", GOOD, ids=lambda kind: kind.name)
def test_the_tokens_of_each_good_clip_are_those_of_what_was_written_into_it(
    extracted: tuple[Path, int, str], kind: Kind
) -> None:
    tokens, right = stored(extracted[0], kind), expected(kind)
    (wanted,) = load_encoder("tiny", torch.device("cpu")).encode([right])
    assert tokens.visual.shape == wanted.visual.shape
    assert tokens.audio.shape == wanted.audio.shape
    # Lossy codecs blur, so a token is like its own time's, and more so than any other frame's.
    likeness = tokens.visual @ wanted.visual.T
    own = np.diagonal(likeness)
    others = np.where(right.frame_index[:, None] == right.frame_index, -1, likeness).max(axis=1)
    assert own.min() > 0.97
    assert (own > others).all()
    error = np.abs(tokens.audio - wanted.audio)
    assert np.median(error) < 0.1 * wanted.audio.std()
    assert FeatureStore.open(extracted[0]).notes == {}


@dataclass(frozen=True)
class Stored:
    visual: NDArray[np.float32]
    audio: NDArray[np.float32]


def stored(cache: Path, kind: Kind) -> Stored:
    """Return a clip's tokens without padding."""
    store = FeatureStore.open(cache)
    row = store.manifest.ids.index(place(kind.name))
    clips = store.load(np.array([row]))
    seen, heard = int(clips.visual_lengths[0]), int(clips.audio_lengths[0])
    return Stored(
        clips.visual[0, :seen].astype(np.float32), clips.audio[0, :heard].astype(np.float32)
    )


def test_a_silent_clip_becomes_silence_with_a_note_when_asked_for(
    videos: Path, extracted: tuple[Path, int, str]
) -> None:
    cache = extracted[0]
    for name in ("crash.avi", "hang.avi"):  # or they would be decoded, now that nothing befalls
        (videos / place(name)).write_bytes(b"")
    status, shown = run(videos, cache, "--silent", "zeros", "--retry-failed")
    assert status == 3
    assert "29 of 40 clips are in" in shown
    note = "no audio track: silence instead"
    assert FeatureStore.open(cache).notes == {place("mute.mp4"): note}
    info = CliRunner().invoke(app, ["cache", "info", "--cache", str(cache)]).stdout
    assert f"note: {place('mute.mp4')}: {note}" in info
    mute = replace(USUAL, name="mute.mp4")
    right = expected(mute)
    silent = Media(right.frames, right.frame_index, np.zeros_like(right.waveform))
    (wanted,) = load_encoder("tiny", torch.device("cpu")).encode([silent])
    tokens = stored(cache, mute)
    assert np.abs(tokens.audio - wanted.audio).max() < 1e-3
    assert (tokens.visual * wanted.visual).sum(axis=1).min() > 0.97
