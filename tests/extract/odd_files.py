"""Write video files of many kinds, and damage them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A file to write: pictures whose colours and a sound whose pitch belong to its number."""

    name: str
    video: str = "libx264"
    audio: str = "aac"
    pixels: str = "yuv420p"
    height: int = 64
    width: int = 96
    times_s: tuple[float, ...] = tuple(number / 25 for number in range(50))
    sound_s: float = 2.0
    rate: int = 16_000
    layout: str = "mono"
    quarter_turns: int = 0  # clockwise, to be made by the player
    lead: int = 0  # samples that the codec puts before the sound, which this container keeps
    number: int = 0
    options: tuple[tuple[str, str], ...] = ()

    @property
    def channels(self) -> int:
        return {"mono": 1, "stereo": 2, "5.1": 6}[self.layout]

    def pictures(self) -> Iterator[NDArray[np.uint8]]:
        """Give [H, W, 3] as they are stored: fields of random colours, new in every frame."""
        rng = np.random.default_rng(self.number)
        rows, columns = (np.arange(n) * 4 // n for n in (self.height, self.width))
        for _ in self.times_s:
            fields = rng.integers(20, 235, (4, 4, 3), dtype=np.uint8)
            yield fields[rows][:, columns]

    def sound(self) -> NDArray[np.float32]:
        """Return [C, S]: a tone that swells; quieter in each channel, none in that for the bass."""
        time_s = np.arange(round(self.sound_s * self.rate)) / self.rate
        tone = (0.2 + 0.2 * time_s) * np.sin(2 * np.pi * (300 + 40 * self.number) * time_s)
        gains = 1 / np.arange(1, self.channels + 1) * (np.arange(self.channels) != 3)
        return (gains[:, None] * tone).astype(np.float32)


def every(seconds: float, rate: float) -> tuple[float, ...]:
    return tuple(number / rate for number in range(round(seconds * rate)))


LOSSLESS: dict[str, Any] = {"video": "ffv1", "audio": "pcm_f32le", "pixels": "bgr0"}
GOOD = [
    replace(kind, number=number)
    for number, kind in enumerate([
        Kind(name="usual.mp4"),
        Kind(name="lossless.mkv", **LOSSLESS),
        Kind(name="vp9.webm", video="libvpx-vp9", audio="libopus", rate=48_000),
        Kind(name="vp8.webm", video="libvpx", audio="libopus", rate=48_000, options=(("b", "2M"),)),
        Kind(name="xvid.avi", video="mpeg4", audio="pcm_s16le", options=(("b", "2M"),)),
        Kind(name="mjpeg.avi", video="mjpeg", audio="pcm_s16le", pixels="yuvj444p", rate=8_000),
        Kind(name="flac.mkv", audio="flac", rate=48_000, layout="stereo"),
        Kind(name="hevc.mp4", video="libx265", options=(("x265-params", "log-level=none"),)),
        Kind(name="pcm.mov", audio="pcm_s16le", rate=44_100),
        Kind(name="stream.ts", lead=1024),
        Kind(name="flash.flv", rate=44_100, lead=1024),
        Kind(name="ten bits.mkv", pixels="yuv420p10le"),
        Kind(name="varying rate.mp4", times_s=(0, 0.1, 0.3, 0.75, 1.0, 1.05, 1.6, 1.9)),
        Kind(name="varying rate.mkv", **LOSSLESS, times_s=(0, 0.2, 0.9, 1.3, 1.8)),
        Kind(name="on its right.mp4", quarter_turns=1),
        Kind(name="upside down.mp4", quarter_turns=2),
        Kind(name="on its left.mp4", quarter_turns=3),
        Kind(name="odd size.webm", video="libvpx-vp9", audio="libopus", rate=48_000, height=47,
             width=65),
        Kind(name="odd size.mkv", **LOSSLESS, height=71, width=33),
        Kind(name="tall.mp4", height=256, width=32),
        Kind(name="six channels.mp4", layout="5.1", rate=48_000),
        Kind(name="six channels.mkv", audio="flac", layout="5.1", rate=44_100),
        Kind(name="telephone.mp4", rate=8_000),
        Kind(name="slow.mp4", times_s=every(2, 5)),
        Kind(name="fast.mp4", times_s=every(2, 60)),
        Kind(name="short.mkv", **LOSSLESS, times_s=every(1, 25), sound_s=1.0),
        Kind(name="long.mp4", times_s=every(4, 25), sound_s=4.0),
        Kind(name="Ärger, 50 %.MP4"),
    ])
]  # fmt: skip


def write(path: Path, kind: Kind, *, video: bool = True, audio: bool = True) -> Path:
    """Write a file of this kind, or only one of its tracks."""
    options = {"movflags": "faststart"} if "front" in path.name else {}
    with av.open(str(path), "w", options=options) as container:
        seen: Any = container.add_stream(kind.video, rate=25) if video else None
        if seen:
            seen.height, seen.width, seen.pix_fmt = kind.height, kind.width, kind.pixels
            seen.codec_context.time_base = Fraction(1, 1000)
            seen.options = dict(kind.options)
        heard: Any = None
        if audio:
            heard = container.add_stream(kind.audio, rate=kind.rate, layout=kind.layout)
        packets = [*(encoded(seen, pictures(kind)) if seen else ()),
                   *(encoded(heard, blocks(kind, heard)) if audio else ())]  # fmt: skip
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    if kind.quarter_turns:
        turn(path, kind.quarter_turns)
    return path


def encoded(stream: Any, frames: Iterator[Any]) -> Iterator[Any]:
    for frame in frames:
        yield from stream.encode(frame)
    yield from stream.encode()


def pictures(kind: Kind) -> Iterator[av.VideoFrame]:
    for time_s, image in zip(kind.times_s, kind.pictures(), strict=True):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = round(1000 * time_s), Fraction(1, 1000)
        yield frame


def blocks(kind: Kind, stream: Any) -> Iterator[av.AudioFrame]:
    whole = av.AudioFrame.from_ndarray(kind.sound(), format="fltp", layout=kind.layout)
    whole.sample_rate, whole.pts, whole.time_base = kind.rate, 0, Fraction(1, kind.rate)
    size = stream.codec_context.frame_size or 1024
    cutter = av.AudioResampler(stream.format, kind.layout, kind.rate, frame_size=size)
    yield from cutter.resample(whole)
    yield from cutter.resample(None)


def turn(path: Path, quarters: int) -> None:
    """Have players turn the pictures clockwise: write the matrix of the first track."""
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    cos, sin = [(0, 1), (-1, 0), (0, -1)][quarters - 1]
    values = [cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30]
    content[matrix : matrix + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in values)
    path.write_bytes(content)


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    """Turn bits over in the middle half of a file, where the packets are."""
    content, rng = bytearray(path.read_bytes()), np.random.default_rng(0)
    for place in rng.integers(len(content) // 4, 3 * len(content) // 4, 60):
        content[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def without_index(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"moov", b"lost"))
