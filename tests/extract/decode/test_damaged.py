"""Damage: what is lost, what refers to it, and what the note says."""

from __future__ import annotations

import errno
import gc
import pickle
import re
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from avcil.extract.decode.media import decode
from avcil.extract.errors import MediaError
from tests.extract.decode.numbered import (
    FPS,
    RATE,
    SAMPLING,
    apart_s,
    number_of,
    write,
)


@pytest.mark.parametrize(("name", "codecs", "rate", "kind"), [
    ("a.mp4", ("libx264", "aac"), 16_000, "audio"),
    ("a.webm", ("libvpx", "libopus"), 48_000, "video"),
    ("a.mkv", ("mpeg4", "flac"), 16_000, "audio"),
    ("a.webm", ("libvpx-vp9", "libopus"), 48_000, "video"),
])  # fmt: skip
def test_a_damaged_packet_costs_no_other(
    tmp_path: Path, name: str, codecs: tuple[str, str], rate: int, kind: str
) -> None:
    path = write(tmp_path / name, codecs=codecs, rate=rate, options={"g": "5"})
    with av.open(str(path)) as container:
        stream: Any = getattr(container.streams, kind)[0]
        packet = [packet for packet in container.demux(stream) if packet.size][15]
        payload, place = bytes(packet), packet.pos or 0
    content = path.read_bytes()
    place = content.index(payload, place)
    damaged = np.random.default_rng(1).integers(0, 256, len(payload), dtype=np.uint8).tobytes()
    path.write_bytes(content[:place] + damaged + content[place + len(payload) :])
    media = decode(path, SAMPLING)
    assert "damaged" in media.note
    assert len(media.waveform) >= 3.9 * RATE
    late = apart_s(media)[8:]
    assert len(late) >= 8
    assert max(map(abs, late)) < 0.1


@pytest.mark.parametrize(("name", "codecs"), [
    ("a.webm", ("libvpx-vp9", "libopus")),
    ("a.webm", ("libvpx", "libopus")),
    ("a.mkv", ("libx264", "flac")),
    ("a.avi", ("mpeg4", "flac")),
])  # fmt: skip
@pytest.mark.parametrize("at_s", [1.0, 2.8])
def test_no_token_sees_a_frame_that_refers_to_a_lost_one(
    tmp_path: Path, name: str, codecs: tuple[str, str], at_s: float
) -> None:
    options = {"g": "75", "bf": "0"} | ({"sc_threshold": "0"} if "264" in codecs[0] else {})
    path = write(tmp_path / name, codecs=codecs, rate=48_000, options=options)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        payload, place = bytes(packets[round(FPS * at_s)]), packets[round(FPS * at_s)].pos or 0
    content = path.read_bytes()
    place = content.index(payload, place)
    end = place + len(payload)
    path.write_bytes(content[:place] + bytes([255] * len(payload)) + content[end:])
    if at_s == 1.0:  # half of the pictures, up to the next key frame, are lost
        with pytest.raises(MediaError, match=r"only \d.\d of \d.\d s of video .* refer to damaged"):
            decode(path, SAMPLING)
        return
    media = decode(path, SAMPLING)
    assert re.search(r"1 of \d+ frames are damaged; \d of \d+ frames refer to damaged", media.note)
    assert "missing" not in media.note
    shown = [number_of(frame) for frame in media.frames]
    assert set(shown) & set(range(71, 75)) == set()
    assert max(map(abs, apart_s(media))) <= 0.12  # half of the stretch without pictures


def test_frames_are_freed_as_they_are_decoded(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4")
    decode(path, SAMPLING)
    gc.collect()
    gc.disable()
    try:
        decode(path, SAMPLING)
        alive = sum(type(each) is av.VideoFrame for each in gc.get_objects())
    finally:
        gc.enable()
    assert alive < 5


def test_without_memory_the_file_is_not_to_blame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.mp4", seconds=0.4)

    def full(*_: object, **__: object) -> None:
        raise av.error.MemoryError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(av, "open", full)
    with pytest.raises(MemoryError) as error:
        decode(path, SAMPLING)
    assert pickle.loads(pickle.dumps(error.value)).args == error.value.args
