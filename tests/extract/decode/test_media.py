"""Decoding: the frames nearest to the token grid, the waveform, and what can be wrong."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from avcil.extract.decode.media import Sampling, decode
from avcil.extract.errors import MediaError

AT_25 = Sampling(seconds=2, visual_rate_hz=25, sample_rate=16_000)
AT_8 = Sampling(seconds=2, visual_rate_hz=8, sample_rate=16_000)


def numbered(count: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Draw frames that say their number by their grey level."""
    levels = (np.arange(count) * 4 % 256).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


def tone(seconds: float, rate: int, channels: int = 1) -> NDArray[np.float32]:
    """Return a tone of 440 Hz, quieter in each further channel: [C, S]."""
    time_s = np.arange(round(seconds * rate)) / rate
    gains = 0.5 / np.arange(1, channels + 1)
    return (gains[:, None] * np.sin(2 * np.pi * 440 * time_s)).astype(np.float32)


def write(
    path: Path,
    *,
    times_s: list[float] | None = None,
    frames: NDArray[np.uint8] | None = None,
    sound: NDArray[np.float32] | None = None,
    rate: int = 16_000,
    codecs: tuple[str, str] = ("libx264", "aac"),
    layout: str = "mono",
) -> Path:
    """Write a file with frames at the given times, or without video or sound."""
    with av.open(str(path), "w") as container:
        video: Any = None
        audio: Any = None
        if frames is not None:
            video = container.add_stream(codecs[0], rate=25)
            video.height, video.width, video.pix_fmt = *frames.shape[1:3], "yuv420p"
            video.codec_context.time_base = Fraction(1, 1000)
        if sound is not None:
            audio = container.add_stream(codecs[1], rate=rate, layout=layout)
        if video is not None and frames is not None:
            for number, image in enumerate(frames):
                picture = av.VideoFrame.from_ndarray(image, format="rgb24")
                picture.pts = round(1000 * (times_s[number] if times_s else number / 25))
                picture.time_base = Fraction(1, 1000)
                container.mux(video.encode(picture))
            container.mux(video.encode())
        if audio is not None and sound is not None:
            block = av.AudioFrame.from_ndarray(sound.T.reshape(1, -1), format="flt", layout=layout)
            block.sample_rate, block.pts, block.time_base = rate, 0, Fraction(1, rate)
            resampler = av.AudioResampler(format=audio.format, layout=layout, rate=rate)
            for part in resampler.resample(block):
                container.mux(audio.encode(part))
            container.mux(audio.encode())
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write(tmp_path / "clip.mp4", frames=numbered(50), sound=tone(2, 16_000))


def shown(path: Path, sampling: Sampling) -> list[int]:
    """Return the number of the frame that each token sees."""
    media = decode(path, sampling)
    levels = media.frames.mean(axis=(1, 2, 3))
    return [round(float(level) / 4) for level in levels[media.frame_index]]


def test_a_token_sees_the_frame_of_its_time(clip: Path) -> None:
    assert shown(clip, AT_25) == list(range(50))


def test_at_a_lower_rate_tokens_see_the_nearest_frames_and_only_those_are_kept(clip: Path) -> None:
    # k / 8 s is k * 3.125 frames of 1/25 s; 12.5 and 37.5 are ties
    assert shown(clip, AT_8) == [0, 3, 6, 9, 12, 16, 19, 22, 25, 28, 31, 34, 37, 41, 44, 47]
    assert len(decode(clip, AT_8).frames) == 16


def test_on_a_tie_the_earlier_frame_is_seen(tmp_path: Path) -> None:
    times = [0.0, 0.08, 0.16, 0.24]
    path = write(tmp_path / "tie.mp4", times_s=times, frames=numbered(4), sound=tone(0.24, 16_000))
    assert shown(path, AT_25)[:6] == [0, 0, 1, 1, 2, 2]


def test_no_frame_is_seen_more_than_0_1_s_before_a_player_shows_it(tmp_path: Path) -> None:
    times = [0.0, 0.1, 1.0, 1.2]  # a variable frame rate
    path = write(tmp_path / "vfr.mp4", times_s=times, frames=numbered(4), sound=tone(1.6, 16_000))
    media = decode(path, AT_8)
    assert len(media.frames) == 4
    assert media.frame_index.tolist() == [0, *[1] * 7, 2, 3, 3, 3, 3]


def test_what_lies_beyond_the_nominal_length_is_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "long.mp4", frames=numbered(60), sound=tone(3, 16_000))
    media = decode(path, AT_25)
    assert media.waveform.shape == (32_000,)
    assert media.frame_index.shape == (50,)


def test_a_short_clip_is_as_long_as_its_sound(tmp_path: Path) -> None:
    path = write(tmp_path / "short.mkv", frames=numbered(50), sound=tone(1, 16_000))
    media = decode(path, AT_25)
    assert len(media.waveform) == pytest.approx(16_000, abs=1100)  # AAC adds part of a frame
    assert len(media.frame_index) == -(-len(media.waveform) // 640)


def test_sound_is_resampled_and_then_averaged_over_channels(tmp_path: Path) -> None:
    import torch
    from torchaudio.functional import resample

    sound = tone(2, 44_100, channels=2)
    codecs = ("libx264", "pcm_f32le")
    path = write(
        tmp_path / "clip.mkv", frames=numbered(50), sound=sound, rate=44_100, codecs=codecs,
        layout="stereo",
    )  # fmt: skip
    expected = resample(torch.from_numpy(sound), 44_100, 16_000).mean(dim=0).numpy()
    assert np.array_equal(decode(path, AT_25).waveform, expected[:32_000])


@pytest.mark.parametrize(("name", "codecs", "layout", "channels", "rate"), [
    ("webm", ("libvpx-vp9", "libopus"), "mono", 1, 48_000),
    ("mkv", ("libx264", "flac"), "5.1", 6, 48_000),
    ("avi", ("mpeg4", "pcm_s16le"), "stereo", 2, 8_000),
    ("mp4", ("libx264", "aac"), "5.1", 6, 48_000),
    ("mkv", ("libx264", "flac"), "7.1", 8, 48_000),
    ("mkv", ("libx264", "pcm_s16le"), "hexadecagonal", 16, 16_000),
])  # fmt: skip
def test_other_containers_codecs_layouts_and_rates_decode(
    tmp_path: Path, name: str, codecs: tuple[str, str], layout: str, channels: int, rate: int
) -> None:
    path = write(
        tmp_path / f"clip.{name}", frames=numbered(50), sound=tone(2, rate, channels), rate=rate,
        codecs=codecs, layout=layout,
    )  # fmt: skip
    media = decode(path, AT_8)
    assert len(media.waveform) == pytest.approx(32_000, abs=200)
    assert len(media.frame_index) == 16
    assert media.waveform.std() > 0.05


def reason(path: Path) -> str:
    with pytest.raises(MediaError) as error:
        decode(path, AT_25)
    return str(error.value)


def test_a_file_that_is_missing_or_empty_is_said_to_be(tmp_path: Path) -> None:
    assert reason(tmp_path / "none.mp4") == "file is missing"
    (tmp_path / "empty.mp4").touch()
    assert reason(tmp_path / "empty.mp4") == "file is empty"


@pytest.mark.parametrize("content", [b"\x00\xff" * 5000, b"<html>404 Not Found</html>" * 100])
def test_a_file_that_is_no_media_is_said_to_be_unreadable(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "page.mp4").write_bytes(content)
    assert reason(tmp_path / "page.mp4").startswith("not a readable media file")


def test_a_file_without_sound_is_refused(tmp_path: Path) -> None:
    assert reason(write(tmp_path / "mute.mp4", frames=numbered(50))) == "no audio track"


def test_a_file_without_pictures_is_refused(tmp_path: Path) -> None:
    assert reason(write(tmp_path / "radio.mp4", sound=tone(2, 16_000))) == "no video track"


def test_a_cut_mp4_is_unreadable(tmp_path: Path, clip: Path) -> None:
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])  # its index is at the end
    assert reason(clip).startswith("not a readable media file")


def test_a_cut_webm_which_decodes_without_an_error_is_found_out_by_its_length(
    tmp_path: Path,
) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (50, 48, 64, 3), dtype=np.uint8)
    path = write(
        tmp_path / "cut.webm", frames=frames, sound=tone(2, 48_000), rate=48_000,
        codecs=("libvpx-vp9", "libopus"),
    )  # fmt: skip
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "of 2.0 s of" in reason(path)


def noise(count: int) -> NDArray[np.uint8]:
    """Draw frames of random fields, of which every bit of a file matters."""
    fields = np.random.default_rng(0).integers(0, 255, (count, 6, 8, 3), dtype=np.uint8)
    return np.kron(fields, np.ones((1, 8, 8, 1), np.uint8))


def flip(path: Path, places: slice) -> None:
    """Turn over one bit of some bytes of a file."""
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    content[places] ^= 1
    path.write_bytes(content.tobytes())


def test_a_clip_of_which_frames_are_damaged_has_a_note_and_none_of_them_is_seen(
    tmp_path: Path,
) -> None:
    # Not libx264, which writes other bytes each time, and whose damage is not always seen.
    codecs = ("mpeg4", "aac")
    path = write(tmp_path / "a.mp4", frames=noise(50), sound=tone(2, 16_000), codecs=codecs)
    good = decode(path, AT_25)
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][20]
        middle = (packet.pos or 0) + packet.size // 2
    flip(path, slice(middle, middle + 20))
    media = decode(path, AT_25)
    assert good.note == ""
    assert "1 of 50 frames are damaged" in media.note
    assert len(media.frames) < len(good.frames)
    assert len(media.frame_index) == 50


def test_a_file_with_many_flipped_bits_is_refused(clip: Path) -> None:
    size = clip.stat().st_size
    flip(clip, slice(size // 4, 3 * size // 4, 97))
    assert reason(clip).startswith("only ")


def test_sound_of_which_many_packets_are_damaged_is_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.mkv", frames=noise(50), sound=tone(2, 16_000), codecs=("libx264", "flac")
    )
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
    content = path.read_bytes()
    for packet in packets[::3]:
        where = content.index(bytes(packet))
        content = content[:where] + bytes(packet.size) + content[where + packet.size :]
    path.write_bytes(content)
    assert re.search(r"of [12]\.\d s of audio can be decoded \(\d+ of \d+ packets of", reason(path))


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    reasons = {reason(tmp_path / name) for name in ("pipe.mp4", "folder.mp4")}
    assert reasons == {"not a regular file"}


def test_times_count_from_the_start_of_the_file_where_that_is_not_zero(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.mkv", frames=numbered(50), sound=tone(2, 16_000), codecs=("ffv1", "flac")
    )
    with av.open(str(path)) as source, av.open(str(tmp_path / "late.mkv"), "w") as target:
        tracks = {stream: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.pts = packet.dts = (packet.pts or 0) + round(10 / packet.time_base)
                packet.stream = tracks[packet.stream]
                target.mux(packet)
    assert shown(tmp_path / "late.mkv", AT_25) == list(range(50))


ZEROS = replace(AT_25, silent="zeros")


@pytest.mark.parametrize(("frames", "tokens"), [(50, 50), (60, 50), (30, 30)])
def test_a_file_without_sound_is_silence_as_long_as_its_pictures_when_asked_for(
    tmp_path: Path, frames: int, tokens: int
) -> None:
    path = write(tmp_path / "mute.mp4", frames=numbered(frames))
    media = decode(path, ZEROS)
    assert media.note == "no audio track: silence instead"
    assert media.waveform.shape == (tokens * 640,)
    assert not media.waveform.any()
    assert shown(path, ZEROS) == list(range(tokens))


def test_a_file_with_sound_is_decoded_as_always_when_silence_is_allowed(clip: Path) -> None:
    one, other = decode(clip, AT_25), decode(clip, ZEROS)
    assert np.array_equal(one.waveform, other.waveform)
    assert one.note == other.note == ""


def test_a_silent_file_that_was_cut_is_refused_all_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.webm", frames=noise(50), codecs=("libvpx-vp9", "libopus"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MediaError, match=r"only .* of video can be decoded"):
        decode(path, ZEROS)
