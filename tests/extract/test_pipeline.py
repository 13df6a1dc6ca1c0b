"""Extraction: clips that fail cost themselves only, and a kill costs the shard it was at."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from avcil.cache.errors import CacheIncomplete, CacheUnwritable, FingerprintMismatch
from avcil.cache.reader import FeatureStore
from avcil.cache.schema import Encoding, Failure, Tokens
from avcil.cache.writer import CacheWriter
from avcil.extract.datasets import Clip, Dataset
from avcil.extract.decode.decoders import Decoders
from avcil.extract.decode.media import Sampling
from avcil.extract.demo import CLASSES, DemoClip, draw_clip
from avcil.extract.demo.mp4 import write_mp4
from avcil.extract.encoders.base import Encoder, Media, StreamingEncoder
from avcil.extract.errors import NoRoom, TooManyFailures
from avcil.extract.events import Encoded, Finished, Shard
from avcil.extract.pipeline import extract
from avcil.extract.plan import Settings
from avcil.extract.worker import Worker

SETTINGS = Settings(seconds=2, visual_rate_hz=8, workers=2, shard_clips=4)
SAMPLING = Sampling(seconds=2, visual_rate_hz=8, sample_rate=16_000)


class MeanEncoder(Encoder):
    """An encoder without weights: mean colour of a frame, loudness of 640 samples."""

    def __init__(self, name: str = "mean", pause_s: float = 0.0) -> None:
        self.name, self.pause_s, self.encoded = name, pause_s, 0

    @property
    def sample_rate(self) -> int:
        return 16_000

    @property
    def resizing(self) -> None:
        return None

    def encoding(self, *, seconds: float, visual_rate_hz: float) -> Encoding:
        return Encoding(
            encoder=self.name, fingerprint=f"{self.name} {seconds} {visual_rate_hz}",
            visual_tokens=round(seconds * visual_rate_hz), visual_width=3,
            audio_tokens=round(seconds * 25), audio_width=1, visual_rate_hz=visual_rate_hz,
            audio_rate_hz=25, seconds=seconds,
        )  # fmt: skip

    def encode(self, clips: Sequence[Media]) -> list[Tokens]:
        time.sleep(self.pause_s)
        self.encoded += len(clips)
        return [self._encode(clip) for clip in clips]

    def _encode(self, clip: Media) -> Tokens:
        loudness = clip.waveform.reshape(-1, 640).std(axis=1)
        return Tokens(clip.frames.mean(axis=(1, 2))[clip.frame_index], loudness[:, None])


def render(folder: Path, count: int) -> Dataset:
    """Write training clips of the demo's first two classes."""
    clips = []
    for number in range(count):
        clip = DemoClip("train", number % 2, number)
        path = folder / clip.path
        if not path.exists():
            write_mp4(path, *draw(clip))
        clips.append(Clip(clip.id, path, clip.name, clip.split))
    return Dataset(name="few", classes=tuple(CLASSES)[:2], clips=tuple(clips))


def draw(clip: DemoClip) -> tuple[np.ndarray, int, np.ndarray, int]:
    frames, waveform = draw_clip(clip, seed=0)
    return frames, 8, waveform, 16_000


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return render(tmp_path_factory.mktemp("videos"), 10)


def arrays(path: Path) -> list[np.ndarray]:
    store = FeatureStore.open(path)
    clips = store.load(store.rows())
    return [clips.visual, clips.audio, clips.visual_lengths, clips.audio_lengths, clips.labels]


def assert_equal_caches(path: Path, other: Path) -> None:
    assert all(np.array_equal(a, b) for a, b in zip(arrays(path), arrays(other), strict=True))


def with_broken(dataset: Dataset, folder: Path, broken: int) -> Dataset:
    """Replace the first clips by files that are no media."""
    (folder / "page.mp4").write_text("<html>404</html>" * 100)
    clips = [
        Clip(clip.id, folder / "page.mp4" if number < broken else clip.path, clip.label, clip.split)
        for number, clip in enumerate(dataset.clips)
    ]
    return Dataset(name=dataset.name, classes=dataset.classes, clips=tuple(clips))


def test_every_clip_is_encoded_into_its_row(few: Dataset, tmp_path: Path) -> None:
    summary = extract(few, MeanEncoder(), tmp_path / "cache", SETTINGS)
    store = FeatureStore.open(tmp_path / "cache")
    clips = store.load(store.rows())
    assert (summary.clips, summary.encoded, summary.failures) == (10, 10, {})
    for row, name in enumerate(store.manifest.ids):
        label, number = clips.labels[row], int(name.rsplit("-", 1)[1])
        frames, waveform = draw_clip(DemoClip("train", int(label), number), seed=0)
        assert np.abs(clips.visual[row] - frames.mean(axis=(1, 2))).max() < 4
        assert np.abs(clips.audio[row, :, 0] - waveform.reshape(-1, 640).std(axis=1)).max() < 0.1


def test_a_second_run_encodes_nothing(few: Dataset, tmp_path: Path) -> None:
    extract(few, MeanEncoder(), tmp_path / "cache", SETTINGS)
    again = MeanEncoder()
    assert extract(few, again, tmp_path / "cache", SETTINGS).encoded == again.encoded == 0


def test_an_earlier_cache_is_not_mixed_with_another_encoder(few: Dataset, tmp_path: Path) -> None:
    extract(few, MeanEncoder(), tmp_path / "cache", SETTINGS)
    with pytest.raises(FingerprintMismatch, match=r"other"):
        extract(few, MeanEncoder("other"), tmp_path / "cache", SETTINGS)


def test_a_clip_that_fails_is_recorded_with_its_reason_and_stops_no_other(
    few: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = with_broken(few, tmp_path, 3)
    summary = extract(broken, MeanEncoder(), tmp_path / "cache", SETTINGS)
    store = FeatureStore.open(tmp_path / "cache")
    assert summary.encoded == 7
    assert summary.failures.keys() == {clip.id for clip in few.clips[:3]}
    assert all("not a readable media file" in text for text in summary.failures.values())
    assert len(store.rows()) == 7
    again = extract(broken, MeanEncoder(), tmp_path / "cache", SETTINGS)
    assert again.failures == summary.failures
    assert "shards are kept from an earlier run" in capsys.readouterr().err


def test_too_many_failures_stop_the_run_and_keep_what_is_written(
    few: Dataset, tmp_path: Path
) -> None:
    rows = sorted(few.clips, key=lambda clip: (clip.label != few.classes[0], clip.id))
    ordered = Dataset(name="few", classes=few.classes, clips=tuple(reversed(rows)))
    broken = with_broken(ordered, tmp_path, 5)  # all of the second class, which is written last
    strict = Settings(
        seconds=2, visual_rate_hz=8, shard_clips=4, max_failures=0.2, tolerated_failures=2
    )
    with pytest.raises(TooManyFailures, match=r"3 of 10 clips failed.*--max-failures"):
        extract(broken, MeanEncoder(), tmp_path / "cache", strict)
    summary = extract(broken, MeanEncoder(), tmp_path / "cache", SETTINGS)
    assert len(summary.failures) == 5
    assert summary.encoded == 1  # the other four were in the shard that had been written


def test_tokens_that_are_not_finite_are_a_failure(few: Dataset, tmp_path: Path) -> None:
    class Broken(MeanEncoder):
        def _encode(self, clip: Media) -> Tokens:
            tokens = super()._encode(clip)
            return Tokens(tokens.visual * np.nan, tokens.audio)

    summary = extract(few, Broken(), tmp_path / "cache", SETTINGS)
    assert set(summary.failures.values()) == {"the encoder gives numbers that are not finite"}


def test_clips_that_fail_stay_in_their_rows_among_others_that_are_encoded_together(
    few: Dataset, tmp_path: Path
) -> None:
    class Late(StreamingEncoder):
        """Gives tokens of a clip when it has taken two more, as a GPU's batches do."""

        mean, sample_rate, resizing = MeanEncoder(), 16_000, None

        def encoding(self, *, seconds: float, visual_rate_hz: float) -> Encoding:
            return self.mean.encoding(seconds=seconds, visual_rate_hz=visual_rate_hz)

        def stream(self, clips: Iterable[Media]) -> Iterator[Tokens]:
            waiting = deque[Media]()
            for clip in clips:
                waiting.append(clip)
                if len(waiting) > 2:
                    yield from self.mean.encode([waiting.popleft()])
            yield from self.mean.encode(list(waiting))

    clips = [
        Clip(clip.id, clip.path if row not in (1, 5, 9) else tmp_path / "gone.mp4", *rest)
        for row, clip in enumerate(few.clips)
        for rest in [(clip.label, clip.split)]
    ]
    holes = Dataset(name=few.name, classes=few.classes, clips=tuple(clips))
    extract(holes, Late(), tmp_path / "late", SETTINGS)
    extract(holes, MeanEncoder(), tmp_path / "plain", SETTINGS)
    assert_equal_caches(tmp_path / "late", tmp_path / "plain")
    assert len(FeatureStore.open(tmp_path / "late").rows()) == 7


def test_a_trial_keeps_whole_shards_and_never_looks_complete(few: Dataset, tmp_path: Path) -> None:
    extract(few, MeanEncoder(), tmp_path / "whole", SETTINGS)
    trial = MeanEncoder()
    summary = extract(few, trial, tmp_path / "cache", replace(SETTINGS, limit=6))
    assert (summary.encoded, trial.encoded, summary.left) == (6, 6, 6)
    assert summary.is_trial
    assert summary.clips_per_s > 0
    with pytest.raises(CacheIncomplete):
        FeatureStore.open(tmp_path / "cache")
    rest = MeanEncoder()
    assert extract(few, rest, tmp_path / "cache", replace(SETTINGS, limit=6)).left == 0
    assert rest.encoded == 6
    assert_equal_caches(tmp_path / "cache", tmp_path / "whole")


def test_a_trial_takes_shards_from_all_over_the_data_set(few: Dataset, tmp_path: Path) -> None:
    extract(few, MeanEncoder(), tmp_path / "cache", replace(SETTINGS, shard_clips=1, limit=3))
    with CacheWriter.open(
        tmp_path / "cache", few.manifest(), MeanEncoder().encoding(seconds=2, visual_rate_hz=8)
    ) as writer:
        assert sorted(set(range(10)) - set(writer.pending())) == [0, 3, 6]


def test_a_disk_that_is_too_small_is_found_out_before_the_start(
    few: Dataset, tmp_path: Path
) -> None:
    class Wide(MeanEncoder):
        def encoding(self, *, seconds: float, visual_rate_hz: float) -> Encoding:
            usual = super().encoding(seconds=seconds, visual_rate_hz=visual_rate_hz)
            return replace(usual, visual_width=10**12)

    encoder = Wide()
    with pytest.raises(
        NoRoom, match=r"10 clips need 320000\.0 GB, and [\d.]+ GB are free at .*: make"
    ):
        extract(few, encoder, tmp_path / "cache", SETTINGS)
    assert encoder.encoded == 0


def test_a_shard_is_written_while_the_next_is_encoded(few: Dataset) -> None:
    """Each waits for the other: a writer in the encoder's way would never end."""
    second_begun = threading.Event()

    class Slow:
        def todo(self, shard: int) -> list[int]:
            return list(range(shard * 5, shard * 5 + 5))

        def commit(self, shard: int, tokens: Sequence[Tokens | Failure]) -> None:
            assert len(tokens) == 5
            if shard == 0:
                assert second_begun.wait(timeout=20)

    class Telling(MeanEncoder):
        def encode(self, clips: Sequence[Media]) -> list[Tokens]:
            if self.encoded >= 5:
                second_begun.set()
            return super().encode(clips)

    with closing(Worker(few, Telling(), SETTINGS)) as worker:
        events = list(worker.encode([Shard(0, 5), Shard(1, 5)], cast(CacheWriter, Slow())))
    assert events.count(Encoded(0)) == events.count(Encoded(1)) == 5
    assert [event for event in events if isinstance(event, Finished)] == [Finished(0), Finished(1)]


def test_an_error_of_the_writer_ends_the_run(few: Dataset) -> None:
    class Full:
        def todo(self, shard: int) -> list[int]:
            return [shard]

        def commit(self, shard: int, tokens: Sequence[Tokens | Failure]) -> None:
            raise CacheUnwritable("full")

    encoder = MeanEncoder()
    shards = [Shard(number, 1) for number in range(10)]
    with (
        closing(Worker(few, encoder, SETTINGS)) as worker,
        pytest.raises(CacheUnwritable, match="full"),
    ):
        list(worker.encode(shards, cast(CacheWriter, Full())))
    assert encoder.encoded == 2  # the second was under way
    assert not children(os.getpid())


def test_a_worker_keeps_its_decoding_processes_between_shards(few: Dataset, tmp_path: Path) -> None:
    encoder = MeanEncoder()
    encoding = encoder.encoding(seconds=2, visual_rate_hz=8)
    with (
        CacheWriter.open(tmp_path / "c", few.manifest(), encoding, shard_clips=2) as writer,
        closing(Worker(few, encoder, SETTINGS)) as worker,
    ):
        seen = []
        for number in range(3):
            *_, last = worker.encode([Shard(number, 2)], writer)
            assert last == Finished(number)
            seen.append(children(os.getpid()))
    assert len(seen[0]) == 2
    assert seen[0] == seen[1] == seen[2]
    assert not children(os.getpid())


def test_failures_are_reported_before_a_shard_is_done(few: Dataset, tmp_path: Path) -> None:
    gone = [replace(clip, path=tmp_path / "gone.mp4") for clip in few.clips[1:]]
    holes = replace(few, clips=(few.clips[0], *gone))
    strict = replace(SETTINGS, shard_clips=10, max_failures=0, tolerated_failures=2)
    with pytest.raises(TooManyFailures, match="3 of 10 clips failed"):
        extract(holes, MeanEncoder(), tmp_path / "cache", strict)
    with pytest.raises(CacheIncomplete):
        FeatureStore.open(tmp_path / "cache")


class Deadly:
    """A path that kills the process which receives it."""

    def __reduce__(self) -> tuple[object, tuple[signal.Signals]]:
        return signal.raise_signal, (signal.SIGSEGV,)


def test_a_file_that_crashes_the_decoder_costs_itself_only(few: Dataset) -> None:
    good = few.clips[0].path
    with Decoders(2, SAMPLING) as decoders:
        results = list(decoders.decode([good, cast(Path, Deadly()), good, good, good]))
    assert results[1] == Failure("decoding crashed (SIGSEGV)")
    assert all(isinstance(result, Media) for result in results[:1] + results[2:])


def test_a_file_that_hangs_the_decoder_is_given_up(few: Dataset) -> None:
    with Decoders(1, SAMPLING, patience_s=0.01) as decoders:
        assert list(decoders.decode([few.clips[0].path])) == [
            Failure("decoding takes longer than 0.01 s")
        ]


def test_results_come_in_order_and_no_process_stays(few: Dataset) -> None:
    paths = [clip.path for clip in few.clips] + [Path("none.mp4")]
    with Decoders(3, SAMPLING) as decoders:
        results = list(decoders.decode(paths))
    assert results.pop() == Failure("file is missing")
    for clip, result in zip(few.clips, results, strict=True):
        assert isinstance(result, Media)
        frames, _ = draw_clip(_demo_clip(clip), seed=0)
        assert np.abs(result.frames.mean(axis=(1, 2)) - frames.mean(axis=(1, 2))).max() < 4
    assert not children(os.getpid())


def _demo_clip(clip: Clip) -> DemoClip:
    return DemoClip(clip.split, list(CLASSES).index(clip.label), int(clip.id.rsplit("-", 1)[1]))


def children(pid: int) -> list[int]:
    """Return the decoding processes of a process."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [child for child in map(int, text.split()) if b"spawn_main" in command(child)]


def command(pid: int) -> bytes:
    path = Path(f"/proc/{pid}/cmdline")
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def killed_run(videos: Path, cache: Path, seconds: float) -> list[int]:
    """Start an extraction, kill it some time after its first shard; return its children."""
    run = subprocess.Popen(
        [sys.executable, __file__, str(videos), str(cache)], stderr=subprocess.DEVNULL
    )
    written = len(list(cache.rglob("*.json")))
    while len(list(cache.rglob("*.json"))) == written and run.poll() is None:
        time.sleep(0.005)
    time.sleep(seconds)
    started = children(run.pid) if run.poll() is None else []
    run.kill()
    run.wait()
    return started


def wait_for_end(pids: list[int]) -> list[int]:
    """Return those that are still there after some seconds."""
    until = time.monotonic() + 10
    while any(b"spawn_main" in command(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    return [pid for pid in pids if b"spawn_main" in command(pid)]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_run_goes_on_to_the_same_cache_and_leaves_no_process(tmp_path: Path) -> None:
    dataset = render(tmp_path / "videos", 16)
    extract(dataset, MeanEncoder(), tmp_path / "whole", SETTINGS)
    moments = random.Random(0)
    for _ in range(2):
        started = killed_run(tmp_path / "videos", tmp_path / "cache", moments.uniform(0, 0.4))
        assert wait_for_end(started) == []
    last = MeanEncoder()
    extract(dataset, last, tmp_path / "cache", SETTINGS)
    assert last.encoded < 16
    assert_equal_caches(tmp_path / "cache", tmp_path / "whole")


if __name__ == "__main__":
    videos, cache = map(Path, sys.argv[1:])
    extract(render(videos, 16), MeanEncoder(pause_s=0.02), cache, SETTINGS)
