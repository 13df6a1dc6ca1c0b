"""Extraction: a clip that fails does not affect others, and a killed run is resumed."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avcil.cache.errors import CacheIncomplete, FingerprintMismatch
from avcil.cache.format.layout import RECORDS
from avcil.cache.reader import FeatureStore
from avcil.cache.schema import Encoding, Tokens
from avcil.cache.storage.open import open_files
from avcil.cache.writer import CacheWriter
from avcil.extract.datasets import Clip, Dataset
from avcil.extract.demo import DemoClip, draw_clip
from avcil.extract.encoders.base import Media
from avcil.extract.errors import NoRoom, TooManyFailures
from avcil.extract.pipeline import extract
from tests.extract.fakes import SETTINGS, MeanEncoder, assert_equal_caches
from tests.processes import all_end, children


@pytest.fixture(scope="module")
def few(dataset: Dataset) -> Dataset:
    return replace(dataset, clips=dataset.clips[:10])


@pytest.fixture(scope="module")
def whole(few: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of all clips, only to be read."""
    path = tmp_path_factory.mktemp("whole") / "cache"
    summary = extract(few, MeanEncoder(), path, SETTINGS)
    assert (summary.clips, summary.encoded, summary.failures) == (10, 10, {})
    return path


def with_broken(dataset: Dataset, folder: Path, broken: int) -> Dataset:
    """Replace the first clips by files that are no media."""
    (folder / "page.mp4").write_text("<html>404</html>" * 100)
    clips = [
        Clip(clip.id, folder / "page.mp4" if number < broken else clip.path, clip.label, clip.split)
        for number, clip in enumerate(dataset.clips)
    ]
    return Dataset(name=dataset.name, classes=dataset.classes, clips=tuple(clips))


def test_every_clip_is_encoded_into_its_row(whole: Path) -> None:
    store = FeatureStore.open(whole)
    clips = store.load(store.rows())
    for row, name in enumerate(store.manifest.ids):
        label, number = clips.labels[row], int(name.rsplit("-", 1)[1])
        frames, waveform = draw_clip(DemoClip("train", int(label), number), seed=0)
        assert np.abs(clips.visual[row] - frames.mean(axis=(1, 2))).max() < 4
        assert np.abs(clips.audio[row, :, 0] - waveform.reshape(-1, 640).std(axis=1)).max() < 0.1


def test_a_second_run_encodes_nothing_and_another_encoder_is_refused(
    few: Dataset, whole: Path
) -> None:
    again = MeanEncoder()
    assert extract(few, again, whole, SETTINGS).encoded == again.encoded == 0
    with pytest.raises(FingerprintMismatch, match=r"other"):
        extract(few, MeanEncoder("other"), whole, SETTINGS)


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
    strict = replace(SETTINGS, max_failures=0.2, tolerated_failures=2)
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


def test_a_trial_keeps_whole_shards_and_never_looks_complete(
    few: Dataset, whole: Path, tmp_path: Path
) -> None:
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
    assert_equal_caches(tmp_path / "cache", whole)


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


def test_failures_are_reported_before_a_shard_is_done(few: Dataset, tmp_path: Path) -> None:
    gone = [replace(clip, path=tmp_path / "gone.mp4") for clip in few.clips[1:]]
    holes = replace(few, clips=(few.clips[0], *gone))
    strict = replace(SETTINGS, shard_clips=10, max_failures=0, tolerated_failures=2)
    with pytest.raises(TooManyFailures, match="3 of 10 clips failed"):
        extract(holes, MeanEncoder(), tmp_path / "cache", strict)
    with pytest.raises(CacheIncomplete):
        FeatureStore.open(tmp_path / "cache")


def records(cache: Path) -> int:
    """Count the shards that are written; a record that is being written has another name."""
    return sum(name.endswith(".json") for name in open_files(cache).names(RECORDS))


def killed_run(pickled: Path, cache: Path, seconds: float) -> list[int]:
    """Start an extraction, kill it some time after its next shard; return its children."""
    run = subprocess.Popen(
        [sys.executable, "-m", "tests.extract.fakes", str(pickled), str(cache)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.DEVNULL,
    )
    written = records(cache)
    while records(cache) == written and run.poll() is None:
        time.sleep(0.005)
    time.sleep(seconds)
    started = children(run.pid) if run.poll() is None else []
    run.kill()
    run.wait()
    return started


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kills", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_to_the_same_cache_and_leaves_no_process(
    few: Dataset, whole: Path, tmp_path: Path, kills: int
) -> None:
    (tmp_path / "dataset").write_bytes(pickle.dumps(few))
    moments = random.Random(kills)
    for _ in range(kills):
        started = killed_run(tmp_path / "dataset", tmp_path / "cache", moments.uniform(0, 0.1))
        assert all_end(started)
    last = MeanEncoder()
    extract(few, last, tmp_path / "cache", SETTINGS)
    assert last.encoded < 10
    assert_equal_caches(tmp_path / "cache", whole)
