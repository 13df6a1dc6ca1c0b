"""Sound and pictures on one clock: files whose tracks start apart, have gaps, jump or are damaged.

Every frame carries its number and the sound is noise of which no two moments are alike, so that it
can be told which moment of the source a token shows and which one it plays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from avcil.extract.decode.media import Sampling, decode
from avcil.extract.encoders.base import Media
from avcil.extract.errors import MediaError

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
) -> Path:
    """Write numbered frames and noise, with changed packets."""
    with av.open(str(path), "w") as container:
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


@pytest.mark.parametrize(("name", "codecs", "rate"), [KINDS[0], KINDS[1], KINDS[2], KINDS[8]])
def test_lost_packets_of_sound_become_as_much_silence(
    tmp_path: Path, name: str, codecs: tuple[str, str], rate: int
) -> None:
    def holed(packet: Any, kind: str, number: int) -> list[Any]:
        lost = kind == "audio" and 1.0 <= packet.pts * packet.time_base < 1.5
        return [] if lost else [packet]

    media = decode(write(tmp_path / name, holed, codecs=codecs, rate=rate), SAMPLING)
    assert "s of silence filled in" in media.note
    assert 0.4 < float(media.note.split(" s of silence")[0].split()[-1]) < 0.6
    assert_together(media)


def test_one_packet_with_a_wrong_time_moves_no_other(tmp_path: Path) -> None:
    def wrong(packet: Any, kind: str, number: int) -> list[Any]:
        return [later(packet, 0.7)] if kind == "audio" and number == 20 else [packet]

    path = write(tmp_path / "a.mkv", wrong, codecs=("ffv1", "pcm_s16le"))
    assert_together(decode(path, SAMPLING))


def joined(path: Path, parts: list[Path]) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


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


@pytest.mark.parametrize("second", [(48_000, "mono"), (24_000, "mono"), (44_100, "stereo")])
def test_sound_of_another_rate_or_layout_keeps_its_pitch_and_its_place(
    tmp_path: Path, second: tuple[int, str]
) -> None:
    def part(first: bool) -> Change:
        def change(packet: Any, kind: str, number: int) -> list[Any]:
            if (packet.dts * packet.time_base < 2) != first:
                return []
            return [later(packet, 5)]  # one clock: the muxer would begin each anew

        return change

    options = {"g": "25", "bf": "0", "sc_threshold": "0"}
    parts = [
        write(tmp_path / f"{first}.ts", part(first), codecs=("libx264", "mp2"), rate=rate,
              layout=layout, options=options)
        for first, (rate, layout) in ((True, (44_100, "mono")), (False, second))
    ]  # fmt: skip
    media = decode(joined(tmp_path / "both.ts", parts), SAMPLING)
    assert "the sound changes: 44100 Hz mono, " in media.note
    assert_together(media)


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


def mutated(
    content: bytes, packets: list[tuple[int, int]], kind: int, rng: np.random.Generator
) -> bytes:
    """Flip bits, cut the end, or remove, double or overwrite a piece of a file."""
    if kind == 0:
        changed = bytearray(content)
        for place in rng.integers(0, len(content), rng.integers(1, 30)):
            changed[place] ^= 1 << int(rng.integers(8))
        return bytes(changed)
    if kind == 1:
        return content[: int(rng.integers(len(content) // 10, len(content)))]
    place, size = packets[int(rng.integers(len(packets)))]
    piece = {2: b"", 3: content[place : place + size] * 2, 4: rng.bytes(size)}[kind]
    return content[:place] + piece + content[place + size :]


FUZZED = [KINDS[0], KINDS[1], KINDS[2], KINDS[5], KINDS[8], KINDS[10]]


def checked(path: Path, pictures: bool = True) -> str:
    """Decode a file; return "refused", its note, or "" after a look at sound and pictures."""
    try:
        media = decode(path, SAMPLING)
    except MediaError:
        return "refused"
    if media.note:
        return media.note
    if pictures:
        off = [round(each, 3) for each in apart_s(media) if abs(each) >= 0.1]
        # The last frames may wait for a packet that is gone.
        return f"apart by {off}" if len(off) > 2 else ""
    late = [heard_s(media.waveform, token / FPS) for token in range(0, len(media.frame_index), 5)]
    off = [token / 5 - sound_s for token, sound_s in enumerate(late) if sound_s is not None]
    return f"apart by {off}" if max(map(abs, off), default=0) >= 0.15 else ""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "codecs", "rate"), FUZZED)
def test_fifty_mutations_of_a_file_are_refused_noted_or_right(
    tmp_path: Path, name: str, codecs: tuple[str, str], rate: int
) -> None:
    content = write(tmp_path / name, codecs=codecs, rate=rate).read_bytes()
    with av.open(str(tmp_path / name)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux() if packet.pos]
    for seed in range(50):
        path = tmp_path / f"{seed}-{name}"
        rng = np.random.default_rng(seed)
        kind = int(rng.integers(5))
        path.write_bytes(mutated(content, packets, kind, rng))
        # No decoder sees every wrong bit: the pictures may be, their times must not.
        assert not checked(path, kind not in (0, 4)).startswith("apart"), (seed, checked(path))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "codecs", "rate"), FUZZED)
def test_packets_that_are_lost_doubled_or_shifted_are_noted_or_right(
    tmp_path: Path, name: str, codecs: tuple[str, str], rate: int
) -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        fate = {("video", "audio")[rng.integers(2)]: rng.integers(0, 50, 3).tolist()}
        shift_s = float(rng.uniform(0.05, 1.5))

        def change(
            packet: Any, kind: str, number: int, fate: Any = fate, shift_s: float = shift_s
        ) -> list[Any]:
            lost, twice, shifted = fate.get(kind, (-1, -1, -1))
            if number == shifted and number != 0:
                return [later(packet, shift_s)]
            return [] if number == lost else [packet] * (1 + (number == twice))

        try:
            path = write(tmp_path / f"{seed}-{name}", change, codecs=codecs, rate=rate)
        except av.FFmpegError:  # the container does not take such times
            continue
        assert not checked(path).startswith("apart"), (seed, fate, shift_s, checked(path))
