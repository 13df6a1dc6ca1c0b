"""Notes on tokens are stored, shown, and removed when the clip is encoded again without one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from avcil.cache.format.layout import Record, dump_record
from avcil.cache.info import provenance
from avcil.cache.reader import FeatureStore
from avcil.cache.schema import Encoding, Failure, Manifest, Tokens
from avcil.cache.writer import CacheWriter
from avcil.cli import app

MANIFEST = Manifest.of("toy", ("a",), [("train", 0, f"clip{number}") for number in range(4)])
ENCODING = Encoding(
    encoder="toy", fingerprint="f", visual_tokens=2, visual_width=3, audio_tokens=2, audio_width=3,
    visual_rate_hz=1, audio_rate_hz=1, seconds=2,
)  # fmt: skip


def tokens(note: str = "") -> Tokens:
    return Tokens(np.ones((2, 3)), np.ones((2, 3)), note)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    path = tmp_path / "cache"
    with CacheWriter.open(path, MANIFEST, ENCODING, shard_clips=4) as writer:
        writer.commit(0, [tokens(), tokens("no sound"), Failure("broken"), tokens("half of it")])
    return path


def test_notes_are_read_with_the_cache_and_shown(cache: Path) -> None:
    notes = {"clip1": "no sound", "clip3": "half of it"}
    assert FeatureStore.open(cache).notes == notes
    shown = CliRunner().invoke(app, ["cache", "info", "--cache", str(cache)]).stdout
    assert [line for line in shown.splitlines() if line.startswith("note: ")] == [
        f"note: {clip}: {note}" for clip, note in notes.items()
    ]


def test_notes_of_clips_that_are_kept_survive_when_others_are_tried_again(cache: Path) -> None:
    with CacheWriter.open(cache, MANIFEST, ENCODING) as writer:
        writer.retry_failed()
        writer.commit(0, [tokens("now it works")])
    assert FeatureStore.open(cache).notes == {
        "clip1": "no sound", "clip2": "now it works", "clip3": "half of it",
    }  # fmt: skip


def test_a_cache_says_how_many_test_clips_share_their_video_with_training(
    leaking_store: FeatureStore, cache: Path
) -> None:
    shown = dict(provenance(leaking_store, "leaking"))
    assert shown["leaks"].startswith("6 of 30 test clips are cut from videos that training clips")
    assert "leaks" not in dict(provenance(FeatureStore.open(cache), cache))


def test_a_record_without_notes_is_written_as_it_was_before_there_were_any() -> None:
    record = Record(shard=0, status=[1], lengths={}, crc32c={}, failures={}, error={})
    assert b"notes" not in dump_record(record)
    assert b'"notes":{"a":"b"}' in dump_record(replace(record, notes={"a": "b"}))
