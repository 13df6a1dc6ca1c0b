"""The built-in clips: ten classes that take both eyes and ears, the same ones everywhere."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from avcil.extract import demo
from avcil.extract.decode.media import Sampling, decode
from avcil.extract.demo import CLASSES, COUNTS, DemoClip, demo_clips, draw_clip, render_demo
from avcil.extract.demo.mp4 import write_mp4

SAMPLING = Sampling(seconds=2, visual_rate_hz=8, sample_rate=16_000)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the demo have three clips a class."""
    for split in COUNTS:
        monkeypatch.setitem(COUNTS, split, 1)


def test_no_look_and_no_sound_belongs_to_one_class_alone_and_no_pair_to_two() -> None:
    looks, sounds = zip(*CLASSES.values(), strict=True)
    assert set(Counter(looks).values()) == set(Counter(sounds).values()) == {2}
    assert len(set(CLASSES.values())) == len(CLASSES) == 10


def test_every_class_is_linked_to_every_other_by_shared_looks_and_sounds() -> None:
    group = {"truck"}
    for _ in CLASSES:
        group |= {b for a in group for b in CLASSES if set(CLASSES[a]) & set(CLASSES[b])}
    assert group == set(CLASSES)


def test_clips_number_24_6_and_10_a_class() -> None:
    counts = Counter((clip.split, clip.name) for clip in demo_clips())
    assert {counts[split, name] for name in CLASSES for split in ("train",)} == {24}
    assert {counts["val", name] for name in CLASSES} == {6}
    assert {counts["test", name] for name in CLASSES} == {10}
    assert len({clip.id for clip in demo_clips()}) == 400


def test_a_seed_gives_the_same_clip_again_and_another_seed_another_clip() -> None:
    clip = DemoClip("train", 3, 0)
    frames, waveform = draw_clip(clip, seed=0)
    again, sound = draw_clip(clip, seed=0)
    other, noise = draw_clip(clip, seed=1)
    assert np.array_equal(frames, again)
    assert np.array_equal(waveform, sound)
    assert not np.array_equal(frames, other)
    assert not np.array_equal(waveform, noise)


def test_no_two_clips_of_a_class_are_alike() -> None:
    drawn = [draw_clip(DemoClip(split, 0, 0), seed=0) for split in COUNTS]
    for (frames, waveform), (others, sound) in combinations(drawn, 2):
        assert not np.array_equal(frames, others)
        assert not np.array_equal(waveform, sound)


@pytest.mark.usefixtures("few")
def test_clips_are_rendered_once_completed_when_some_are_missing_and_decode(tmp_path: Path) -> None:
    render_demo(tmp_path, workers=2)
    paths = [tmp_path / clip.path for clip in demo_clips()]
    written = {path: path.stat().st_mtime_ns for path in paths}
    content = paths[7].read_bytes()
    paths[7].unlink()
    render_demo(tmp_path, workers=1)
    assert paths[7].read_bytes() == content
    assert all(path.stat().st_mtime_ns == written[path] for path in paths if path != paths[7])
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".mp4", ".json"}
    media = decode(paths[0], SAMPLING)
    assert media.frames.shape == (16, 80, 80, 3)
    assert media.waveform.shape == (32_000,)


@pytest.mark.usefixtures("few")
def test_clips_of_another_version_are_rendered_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "CLASSES", {"truck": CLASSES["truck"]})
    render_demo(tmp_path, seed=0, workers=1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.mp4")}
    render_demo(tmp_path, seed=1, workers=1)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*.mp4")}
    assert before.keys() == after.keys()
    assert all(before[path] != after[path] for path in before)


def test_a_drawn_clip_is_what_its_file_gives_but_for_compression(tmp_path: Path) -> None:
    clip = DemoClip("test", 4, 2)
    frames, waveform = draw_clip(clip, seed=0)
    write_mp4(tmp_path / "clip.mp4", frames, 8, waveform, 16_000)
    media = decode(tmp_path / "clip.mp4", SAMPLING)
    assert media.frame_index.tolist() == list(range(16))
    assert np.abs(media.frames.astype(float) - frames).mean() < 8
    assert np.corrcoef(media.waveform, waveform)[0, 1] > 0.9
