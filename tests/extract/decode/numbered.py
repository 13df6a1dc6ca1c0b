"""Clips that show which moment of the source each token sees and hears.

Every frame carries its number and the sound is noise of which no two moments are alike, so that it
can be told which moment of the source a token shows and which one it plays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from avcil.extract.decode.media import Sampling
from avcil.extract.encoders.base import Media

FPS, RATE, SECONDS = 25, 16_000, 4.0
SAMPLING = Sampling(seconds=SECONDS, visual_rate_hz=FPS, sample_rate=RATE)
Change = Callable[[Any, str, int], list[Any]]
"""Packet, "video" or "audio", and its number -> the packets to write in its place."""


def noise(rate: int = RATE) -> NDArray[np.float32]:
    """Return 8 s of noise between 300 and 3,000 Hz: the same sound at every sample rate."""
    rng = np.random.default_rng(0)
    spectrum = np.zeros(4 * rate + 1, np.complex128)
    band = slice(300 * 8, 3000 * 8)
    spectrum[band] = (rng.standard_normal((2700 * 8, 2)) @ [1, 1j]) * rate
    sound = np.fft.irfft(spectrum)
    return (0.2 * sound / sound.std()).astype(np.float32)


def picture(number: int) -> NDArray[np.uint8]:
    """Draw ten fields, dark or bright, that say a number."""
    bits = np.array([(number >> bit) & 1 for bit in range(10)], np.uint8).reshape(2, 5)
    grey = np.kron(bits, np.ones((16, 16), np.uint8)) * 170 + 40
    return np.repeat(grey[:, :, None], 3, 2)


def number_of(image: NDArray[np.uint8]) -> int:
    fields = image[..., 0].reshape(2, 16, 5, 16)[:, 4:12, :, 4:12].mean(axis=(1, 3)) > 125
    return int((fields.ravel() << np.arange(10)).sum())


SOURCE = noise()


def heard_s(waveform: NDArray[np.float32], at_s: float) -> float | None:
    """Return which moment of the source is played at a time; None for silence."""
    part = waveform[round(at_s * RATE) :][: RATE // 5]
    if len(part) < RATE // 5 or part.std() < 1e-2:
        return None
    size = 1 << 18
    match = np.fft.irfft(np.fft.rfft(SOURCE, size) * np.conj(np.fft.rfft(part, size)), size)
    place = int(match[: len(SOURCE) - len(part)].argmax())
    found = SOURCE[place : place + len(part)]
    alike = found @ part / np.sqrt((found @ found) * (part @ part))
    return place / RATE if alike > 0.5 else None


def encoded(stream: Any, frames: Iterator[Any]) -> Iterator[Any]:
    for frame in frames:
        yield from stream.encode(frame)
    yield from stream.encode()


def pictures(times_s: list[float]) -> Iterator[av.VideoFrame]:
    for number, time_s in enumerate(times_s):
        frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
        frame.pts, frame.time_base = round(FPS * time_s), Fraction(1, FPS)
        yield frame


def blocks(stream: Any, rate: int, layout: str, seconds: float) -> Iterator[av.AudioFrame]:
    sound = noise(rate)[: round(seconds * rate)]
    both = np.stack([sound] * (2 if layout == "stereo" else 1))
    whole = av.AudioFrame.from_ndarray(both, format="fltp", layout=layout)
    whole.sample_rate, whole.pts, whole.time_base = rate, 0, Fraction(1, rate)
    size = stream.codec_context.frame_size or 1024
    cutter = av.AudioResampler(stream.format, layout, rate, frame_size=size)
    yield from cutter.resample(whole)
    yield from cutter.resample(None)


def write(
    path: Path,
    change: Change = lambda packet, kind, number: [packet],
    *,
    codecs: tuple[str, str] = ("libx264", "aac"),
    rate: int = RATE,
    layout: str = "mono",
    seconds: float = SECONDS,
    options: dict[str, str] | None = None,
    muxing: dict[str, str] | None = None,
) -> Path:
    """Write numbered frames and noise, with changed packets."""
    with av.open(str(path), "w", options=muxing or {}) as container:
        video: Any = container.add_stream(codecs[0], rate=FPS, options=options or {"g": "25"})
        video.height, video.width, video.pix_fmt = 32, 80, "yuv420p"
        audio: Any = container.add_stream(codecs[1], rate=rate, layout=layout)
        times_s = [number / FPS for number in range(round(seconds * FPS))]
        packets = [
            (packet.dts * packet.time_base, changed)
            for kind, stream, frames in (
                ("video", video, pictures(times_s)),
                ("audio", audio, blocks(audio, rate, layout, seconds)),
            )
            for number, packet in enumerate(encoded(stream, frames))
            for changed in change(packet, kind, number)
        ]
        for _, packet in sorted(packets, key=lambda pair: pair[0]):
            container.mux(packet)
    return path


def later(packet: Any, seconds: float) -> Any:
    packet.pts += round(seconds / packet.time_base)
    packet.dts += round(seconds / packet.time_base)
    return packet


def apart_s(media: Media) -> list[float]:
    """Return how far picture and sound are apart wherever both are there."""
    numbers = [number_of(frame) for frame in media.frames]
    found = []
    for token in range(0, len(media.frame_index), 5):
        sound_s = heard_s(media.waveform, token / FPS)
        if sound_s is not None:
            found.append(numbers[media.frame_index[token]] / FPS - sound_s)
    return found


def assert_together(media: Media, within_s: float = 0.1, least: int = 10) -> None:
    found = apart_s(media)
    assert len(found) >= least
    assert max(map(abs, found)) < within_s


KINDS = [
    ("a.mp4", ("libx264", "aac"), 16_000),
    ("a.mkv", ("libx264", "aac"), 44_100),
    ("a.webm", ("libvpx", "libopus"), 48_000),
    ("a.mkv", ("ffv1", "pcm_s16le"), 44_100),
    ("a.mkv", ("mpeg4", "libmp3lame"), 44_100),
    ("a.avi", ("mpeg4", "libmp3lame"), 44_100),
    ("a.avi", ("libx264", "pcm_s16le"), 16_000),
    ("a.asf", ("libx264", "libmp3lame"), 44_100),
    ("a.ts", ("libx264", "aac"), 48_000),
    ("a.ts", ("mpeg2video", "mp2"), 48_000),
    ("a.mpg", ("mpeg2video", "mp2"), 48_000),
    ("a.flv", ("libx264", "aac"), 44_100),
]


def joined(path: Path, parts: list[Path]) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path
