"""Decoding: the frames nearest to the token grid, the waveform, and what can be wrong."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from avcil.extract.errors import MediaError
from avcil.extract.media import Sampling, decode

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
            block = av.AudioFrame.from_ndarray(sound, format="fltp", layout=layout)
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


def test_with_few_frames_each_is_kept_once_and_seen_often(tmp_path: Path) -> None:
    times = [0.0, 0.1, 1.0, 1.2]  # a variable frame rate
    path = write(tmp_path / "vfr.mp4", times_s=times, frames=numbered(4), sound=tone(1.6, 16_000))
    media = decode(path, AT_8)
    assert len(media.frames) == 4
    assert media.frame_index.tolist() == [0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]


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


@pytest.mark.parametrize(
    ("name", "codecs", "layout", "channels", "rate"),
    [
        ("webm", ("libvpx-vp9", "libopus"), "mono", 1, 48_000),
        ("mkv", ("libx264", "flac"), "5.1", 6, 48_000),
        ("avi", ("mpeg4", "pcm_s16le"), "stereo", 2, 8_000),
        ("mp4", ("libx264", "aac"), "5.1", 6, 48_000),
    ],
)
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


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    assert reason(tmp_path / "none.mp4") == "file is missing"


def test_an_empty_file_is_said_to_be_empty(tmp_path: Path) -> None:
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


def test_a_clip_that_a_phone_recorded_sideways_is_turned_upright(tmp_path: Path) -> None:
    frames = numbered(50)
    frames[:] = 0
    frames[:, :, :32] = 255  # the left half is bright
    path = write(tmp_path / "phone.mp4", frames=frames, sound=tone(2, 16_000))
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40  # the first track is the video
    turned = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]  # a quarter turn, clockwise
    content[matrix : matrix + 36] = b"".join(
        value.to_bytes(4, "big", signed=True) for value in turned
    )
    path.write_bytes(content)
    upright = decode(path, AT_8).frames[0]
    assert upright.shape == (64, 48, 3)
    assert upright[:28].mean() > 200
    assert upright[36:].mean() < 50
