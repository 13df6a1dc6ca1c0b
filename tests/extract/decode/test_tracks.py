"""Which tracks are used, and how pictures are turned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from avcil.extract.decode.media import decode
from avcil.extract.errors import MediaError
from tests.extract.decode.numbered import (
    RATE,
    SAMPLING,
    blocks,
    encoded,
    heard_s,
    picture,
    write,
)


def test_the_track_that_is_the_default_is_taken_and_others_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(write(tmp_path / "b.mkv"))) as source, av.open(str(path), "w") as target:
        sources: Any = source.streams
        other: Any = target.add_stream_from_template(sources.audio[0])
        copies = {stream.index: target.add_stream_from_template(stream) for stream in sources}
        other.disposition = av.stream.Disposition.visual_impaired
        copies[1].disposition = av.stream.Disposition.default
        for packet in source.demux():
            if packet.dts is None:
                continue
            kept, again = bytes(packet), packet.stream.index
            if again == 1:  # the description for the blind: other sound, from the start
                described = av.Packet(kept[::-1])
                described.pts, described.dts = packet.pts, packet.dts
                described.time_base, described.stream = packet.time_base, other
                target.mux(described)
            packet.stream = copies[again]
            target.mux(packet)
    media = decode(path, SAMPLING)
    assert media.note.startswith("1 other audio track ignored")
    assert heard_s(media.waveform, 2.0) == pytest.approx(2.0, abs=0.01)


def rotated(path: Path, values: tuple[int, int, int, int]) -> Path:
    """Write a display matrix (a, b, c, d) into the first track of an mp4 file."""
    a, b, c, d = values
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40
    matrix = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    content[place : place + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in matrix)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("matrix", "shown"), [
    ((1, 0, 0, 1), lambda image: image),
    ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    ((1, 0, 0, -1), lambda image: image[::-1]),
    ((-1, 0, 0, -1), lambda image: image[::-1, ::-1]),
    ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    ((0, -1, 1, 0), lambda image: np.rot90(image)),
    ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
    ((0, -1, -1, 0), lambda image: image[::-1, ::-1].transpose(1, 0, 2)),
])  # fmt: skip
def test_pictures_are_turned_and_mirrored_as_a_player_does(
    tmp_path: Path,
    matrix: tuple[int, int, int, int],
    shown: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
) -> None:
    path = rotated(write(tmp_path / "a.mp4", seconds=1), matrix)
    frame = decode(path, SAMPLING).frames[13].astype(int)
    expected = shown(picture(13)).astype(int)
    assert frame.shape == expected.shape
    assert np.abs(frame - expected).mean() < 20


def test_a_cover_is_no_video_track(tmp_path: Path) -> None:
    path = tmp_path / "cover.mp4"
    with av.open(str(path), "w") as container:
        cover: Any = container.add_stream("png", rate=1)
        cover.height, cover.width, cover.pix_fmt = 32, 80, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        audio: Any = container.add_stream("aac", rate=RATE, layout="mono")
        frame = av.VideoFrame.from_ndarray(picture(1), format="rgb24")
        packets = [*encoded(cover, iter([frame])), *encoded(audio, blocks(audio, RATE, "mono", 2))]
        for packet in packets:
            container.mux(packet)
    with pytest.raises(MediaError, match=r"^no video track$"):
        decode(path, SAMPLING)
