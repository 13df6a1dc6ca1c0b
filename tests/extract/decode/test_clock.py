"""Sound and pictures on one clock: tracks that start apart, missing times, clocks that jump."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from avcil.extract.decode.media import decode
from tests.extract.decode.numbered import (
    KINDS,
    RATE,
    SAMPLING,
    Change,
    apart_s,
    assert_together,
    joined,
    later,
    number_of,
    write,
)


@pytest.mark.parametrize(("name", "codecs", "rate"), KINDS)
def test_b_frames_and_roundings_of_any_container_keep_sound_and_pictures_together(
    tmp_path: Path, name: str, codecs: tuple[str, str], rate: int
) -> None:
    bframes = {"bf": "2", "g": "25"} if codecs[0] in ("libx264", "mpeg4", "mpeg2video") else None
    media = decode(write(tmp_path / name, codecs=codecs, rate=rate, options=bframes), SAMPLING)
    assert media.note == ""
    assert len(media.frames) >= 95
    assert_together(media)


def test_frames_without_a_time_follow_each_other_at_the_rate_of_frames(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mpg", codecs=("libx264", "mp2"), rate=48_000)
    with av.open(str(path)) as container:
        times = [frame.pts for frame in container.decode(video=0)]
    assert times.count(None) > 80
    media = decode(path, SAMPLING)
    assert len(media.frames) >= 95
    assert_together(media)


def test_frames_before_zero_which_have_no_time_are_placed_before_the_first_that_has_one(
    tmp_path: Path,
) -> None:
    def sooner(packet: Any, kind: str, number: int) -> list[Any]:
        return [later(packet, -0.5)]

    disabled = {"avoid_negative_ts": "disabled"}
    path = write(tmp_path / "a.mkv", sooner, muxing=disabled, options={"g": "25", "bf": "2"})
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).pts is None
    media = decode(path, SAMPLING)
    assert media.note == ""
    assert len(media.frames) >= 95
    assert_together(media)


@pytest.mark.parametrize("name", ["a.mkv", "a.flv", "a.ts"])
def test_a_part_of_a_file_that_keeps_its_times_is_whole(tmp_path: Path, name: str) -> None:
    def second_half(packet: Any, kind: str, number: int) -> list[Any]:
        return [packet] if packet.dts * packet.time_base >= 3 else []

    options = {"g": "25", "bf": "0", "sc_threshold": "0"}
    path = write(tmp_path / name, second_half, rate=44_100, seconds=6, options=options)
    media = decode(path, SAMPLING)
    assert len(media.frames) >= 74
    assert_together(media)


def test_what_cannot_be_read_behind_the_end_of_the_first_recording_is_noted(tmp_path: Path) -> None:
    codecs = ("libvpx", "libopus")
    names = [tmp_path / "a.ogv", tmp_path / "b.ogv"]
    parts = [write(name, codecs=codecs, rate=48_000, seconds=2) for name in names]
    media = decode(joined(tmp_path / "both.ogv", parts), SAMPLING)
    assert media.note.startswith("reading ended before the end of the file (")
    assert_together(media, least=5)


@pytest.mark.parametrize(
    ("name", "codecs", "rate"), [*KINDS[:4], ("a.ts", ("libx264", "aac"), 48_000)]
)
def test_sound_that_starts_later_has_silence_before_it(
    tmp_path: Path, name: str, codecs: tuple[str, str], rate: int
) -> None:
    def delayed(packet: Any, kind: str, number: int) -> list[Any]:
        return [later(packet, 1.2)] if kind == "audio" else [packet]

    media = decode(write(tmp_path / name, delayed, codecs=codecs, rate=rate), SAMPLING)
    assert re.match(r"the sound starts 1\.[12] s late: silence until then", media.note)
    assert np.abs(media.waveform[: round(1.1 * RATE)]).max() < 1e-2
    found = apart_s(media)
    assert len(found) >= 10
    assert all(abs(each - 1.2) < 0.06 for each in found)


def test_pictures_that_start_later_are_frozen_before_and_noted(tmp_path: Path) -> None:
    def delayed(packet: Any, kind: str, number: int) -> list[Any]:
        return [later(packet, 1.0)] if kind == "video" else [packet]

    media = decode(write(tmp_path / "a.mkv", delayed), SAMPLING)
    assert "the pictures start 1.0 s late: the first is shown until then" in media.note
    assert all(abs(each + 1.0) < 0.06 for each in apart_s(media)[6:])


def test_pictures_that_end_before_the_sound_are_frozen_and_noted(tmp_path: Path) -> None:
    def short(packet: Any, kind: str, number: int) -> list[Any]:
        return [packet] if kind == "audio" or packet.pts * packet.time_base < 3 else []

    media = decode(write(tmp_path / "a.mkv", short), SAMPLING)
    assert media.note == "the pictures end 1.0 s before the sound: the last is shown until then"
    assert number_of(media.frames[-1]) == 74


def test_packets_without_content_repeat_the_last_frame(tmp_path: Path) -> None:
    def emptied(packet: Any, kind: str, number: int) -> list[Any]:
        if kind == "audio" or number % 20 != 7:
            return [packet]
        empty = av.Packet(b"")
        empty.pts, empty.dts, empty.time_base = packet.pts, packet.dts, packet.time_base
        empty.stream, empty.duration = packet.stream, packet.duration
        return [empty]

    codecs = ("ffv1", "pcm_s16le")
    path = write(tmp_path / "a.nut", emptied, codecs=codecs, options={"g": "1"})
    with av.open(str(path)) as container:
        assert sum(not packet.size for packet in container.demux(video=0)) == 1 + 5
    media = decode(path, SAMPLING)
    assert media.note == ""
    assert len(media.frames) == 95
    assert_together(media)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_video_of_one_frame_is_shown_as_long_as_the_sound_lasts(
    tmp_path: Path, name: str
) -> None:
    def first(packet: Any, kind: str, number: int) -> list[Any]:
        return [packet] if kind == "audio" or number == 0 else []

    media = decode(write(tmp_path / name, first), SAMPLING)
    assert re.match(r"the pictures end [34].. s before the sound", media.note)
    assert (len(media.frames), len(media.frame_index)) == (1, 100)


@pytest.mark.parametrize("jump_s", [500.0, -1.5])
def test_a_jump_of_the_clock_moves_sound_and_pictures_alike(tmp_path: Path, jump_s: float) -> None:
    def part(first: bool) -> Change:
        def change(packet: Any, kind: str, number: int) -> list[Any]:
            # Whole groups of pictures; the second recording has a clock of its own.
            if (packet.dts * packet.time_base < 2) != first:
                return []
            return [packet if first else later(packet, jump_s)]

        return change

    options = {"g": "25", "bf": "0", "sc_threshold": "0"}
    parts = [
        write(tmp_path / f"{first}.ts", part(first), codecs=("libx264", "mp2"), rate=48_000,
              options=options)
        for first in (True, False)
    ]  # fmt: skip
    media = decode(joined(tmp_path / "both.ts", parts), SAMPLING)
    assert "the clock jumps (" in media.note
    assert_together(media)


def test_of_a_second_recording_that_overlaps_the_first_only_the_join_is_apart(
    tmp_path: Path,
) -> None:
    def part(first: bool) -> Change:
        def change(packet: Any, kind: str, number: int) -> list[Any]:
            # As a cut without encoding: frames missing at the end, sound before the first frame.
            begin_s = 1.0 if kind == "video" else 0.9
            if first:
                return [packet] if packet.dts * packet.time_base < 2 else []
            return [later(packet, 500)] if packet.pts * packet.time_base >= begin_s else []

        return change

    options = {"g": "25", "bf": "2", "sc_threshold": "0"}
    parts = [
        write(tmp_path / f"{first}.ts", part(first), rate=48_000, options=options)
        for first in (True, False)
    ]
    media = decode(joined(tmp_path / "both.ts", parts), SAMPLING)
    assert "the clock jumps (" in media.note
    found = apart_s(media)
    assert len(found) >= 17
    assert sum(abs(each) >= 0.1 for each in found) <= 1
