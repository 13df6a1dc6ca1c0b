"""Sound and pictures lie on one clock: every block of sound and every frame at its own time."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from avcil.extract.decode.media import Sampling, decode
from avcil.extract.encoders.base import Media

RATE = 16_000
SAMPLING = Sampling(seconds=4, visual_rate_hz=25, sample_rate=RATE)


def write(path: Path, blocks: list[tuple[float, float]], pictures_s: float = 0.0) -> Path:
    """Write 4 s of frames that say their number, and constant sound from and to these seconds."""
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio: Any = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        packets = []
        for number in range(100):
            level = np.full((48, 64, 3), 2 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(level, format="rgb24")
            frame.pts, frame.time_base = number + round(25 * pictures_s), Fraction(1, 25)
            packets += video.encode(frame)
        packets += video.encode()
        for start_s, end_s in blocks:
            for first in range(round(start_s * RATE), round(end_s * RATE), 1600):
                sound = np.full((1, 1600), 8000, np.int16)
                block = av.AudioFrame.from_ndarray(sound, format="s16", layout="mono")
                block.sample_rate, block.pts, block.time_base = RATE, first, Fraction(1, RATE)
                packets += audio.encode(block)
        for packet in sorted(packets, key=lambda each: each.pts * each.time_base):
            container.mux(packet)
    return path


def frame_at(media: Media, seconds: float) -> int:
    level = media.frames[media.frame_index[round(25 * seconds)]].mean()
    return round(float(level) / 2)


def heard(media: Media) -> list[bool]:
    """Tell for each tenth of a second whether there is sound, at its middle."""
    return (np.abs(media.waveform[800::1600]) > 0.1).tolist()


@pytest.mark.parametrize("suffix", ["mkv", "nut"])
@pytest.mark.parametrize(
    "blocks",
    [[(0.0, 4.0)], [(1.0, 4.0)], [(0.0, 1.0), (2.5, 4.0)], [(0.5, 1.0), (1.5, 2.0), (3.0, 4.0)]],
)
def test_sound_is_heard_when_it_is_played(
    tmp_path: Path, blocks: list[tuple[float, float]], suffix: str
) -> None:
    media = decode(write(tmp_path / f"clip.{suffix}", blocks), SAMPLING)
    expected = [any(a <= t / 10 < b for a, b in blocks) for t in range(len(heard(media)))]
    assert heard(media) == expected
    assert [frame_at(media, seconds) for seconds in (0.0, 1.0, 3.0)] == [0, 25, 75]


def test_the_note_says_how_much_silence_was_filled_in(tmp_path: Path) -> None:
    media = decode(write(tmp_path / "clip.mkv", [(0.0, 1.0), (2.5, 4.0)]), SAMPLING)
    assert "1.50 s of silence filled in" in media.note
    assert decode(write(tmp_path / "whole.mkv", [(0.0, 4.0)]), SAMPLING).note == ""


def test_pictures_that_start_after_the_sound_stay_at_their_own_time(tmp_path: Path) -> None:
    media = decode(write(tmp_path / "clip.mkv", [(0.0, 4.0)], pictures_s=0.4), SAMPLING)
    assert all(heard(media))
    assert [frame_at(media, seconds) for seconds in (1.0, 3.0)] == [15, 65]
