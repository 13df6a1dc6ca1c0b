"""Decode a file into the frames and the waveform that an encoder is given.

The waveform is the clock: there is one visual token for every 1/rate seconds of it, and each takes
the frame shown nearest to that time.

Shapes: F distinct frames of H x W pixels; Tv visual tokens; S samples; C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from avcil.extract.encoders.base import Media
from avcil.extract.errors import MediaError

RESAMPLING_MARGIN_S = 0.1
"""Sound decoded beyond the nominal length, so that the resampler's filter sees past the cut."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """What to take from a file."""

    seconds: float
    """Nominal length; what lies beyond is cut off."""
    visual_rate_hz: float
    """Visual tokens a second."""
    sample_rate: int
    """Samples a second of the waveform."""
    least_share: float = 0.8
    """A file of which less than this can be decoded is refused."""


def decode(path: Path, sampling: Sampling) -> Media:
    """Decode a clip from its start to its nominal length.

    Raises:
        MediaError: the file is missing, no media file, has no audio or no video track, or too
            little of it can be decoded.
    """
    _check_file(path)
    try:
        sound = _sound(path, sampling)
        picture = _picture(path, _grid(len(sound.waveform), sampling), sampling)
    except av.FFmpegError as error:
        raise MediaError(f"not a readable media file ({error.strerror})") from error
    for track in (sound.track, picture.track):
        track.check(track.expected_s, sampling.least_share)
    # Where tracks have no length of their own (webm), the file's is that of the longer one; and a
    # webm file that was cut decodes without any error: only this betrays it.
    longer = max(sound.track, picture.track, key=lambda track: track.decoded_s)
    longer.check(longer.file_s, sampling.least_share)
    return Media(frames=picture.frames, frame_index=picture.index, waveform=sound.waveform)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Track:
    """How much of a track was decoded, and how much of it and of the file there should be."""

    name: str
    decoded_s: float
    expected_s: float
    file_s: float
    stopped: str
    """Why decoding ended before the end, if it did."""

    def check(self, expected_s: float, least_share: float) -> None:
        if self.decoded_s < least_share * expected_s:
            raise MediaError(
                f"only {self.decoded_s:.1f} of {expected_s:.1f} s of {self.name} can be decoded"
                f"{_because(self.stopped)}"
            )


@dataclass(frozen=True, slots=True)
class _Sound:
    waveform: NDArray[np.float32]  # [S]
    track: _Track


@dataclass(frozen=True, slots=True)
class _Picture:
    frames: NDArray[np.uint8]  # [F, H, W, 3]
    index: NDArray[np.int64]  # [Tv]
    track: _Track


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise MediaError("file is missing")
    if path.stat().st_size == 0:
        raise MediaError("file is empty")


def _grid(samples: int, sampling: Sampling) -> NDArray[np.float64]:
    """Return the time of each visual token: k / rate, as long as there is sound."""
    nominal = max(1, round(sampling.seconds * sampling.visual_rate_hz))
    covered = int(np.ceil(samples * sampling.visual_rate_hz / sampling.sample_rate))
    return np.arange(min(nominal, covered)) / sampling.visual_rate_hz


def _sound(path: Path, sampling: Sampling) -> _Sound:
    """Decode the first audio track to [S] mono samples at the rate asked for."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            raise MediaError("no audio track")
        stream = container.streams.audio[0]
        samples, rate, stopped = _samples(container, stream, sampling.seconds)
        track = _track(container, stream, samples.shape[1] / rate, sampling.seconds, stopped)
    waveform = _resampled(samples, rate, sampling.sample_rate).mean(axis=0)
    return _Sound(waveform[: round(sampling.seconds * sampling.sample_rate)], track)


def _samples(
    container: av.container.InputContainer, stream: av.AudioStream, seconds: float
) -> tuple[NDArray[np.float32], int, str]:
    """Return [C, S] samples, their rate, and why decoding stopped early if it did."""
    to_float = av.AudioResampler(format="fltp")
    parts: list[NDArray[np.float32]] = []
    length, rate, stopped = 0, stream.rate, ""
    try:
        for frame in container.decode(stream):
            rate = frame.sample_rate
            parts += [
                np.asarray(part.to_ndarray(), dtype=np.float32) for part in to_float.resample(frame)
            ]
            length += frame.samples
            if length >= (seconds + RESAMPLING_MARGIN_S) * rate:
                break
    except (av.FFmpegError, ValueError) as error:  # ValueError: rate or layout changes on the way
        stopped = str(error)
    if not parts:
        raise MediaError(f"no sound can be decoded{_because(stopped)}")
    return np.concatenate(parts, axis=1), rate, stopped


def _resampled(samples: NDArray[np.float32], rate: int, wanted_rate: int) -> NDArray[np.float32]:
    """Resample [C, S], each channel alone: mixing before it would not equal the official path."""
    if rate == wanted_rate:
        return samples
    # Seconds of import, which a process that only decodes at the right rate need not pay.
    import torch
    from torchaudio.functional import resample

    return resample(torch.from_numpy(samples), rate, wanted_rate).numpy()


def _picture(path: Path, grid_s: NDArray[np.float64], sampling: Sampling) -> _Picture:
    """Decode the distinct frames of the first video track that are nearest to the grid."""
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise MediaError("no video track")
        stream = container.streams.video[0]
        stream.thread_type = "NONE"  # a process a core is cheaper than threads
        film = _Film(container.decode(stream), sampling.seconds)
        chosen = list(film.nearest(grid_s))
        track = _track(container, stream, film.decoded_s, sampling.seconds, film.stopped)
    if not chosen:
        raise MediaError(f"no frame can be decoded{_because(film.stopped)}")
    images = [_image(frame) for frame, _ in chosen]
    if len({image.shape for image in images}) > 1:
        raise MediaError("the size of the picture changes within the file")
    index = np.repeat(np.arange(len(chosen)), [count for _, count in chosen])
    return _Picture(np.stack(images), index, track)


class _Film:
    """Frames in the order in which they are shown, of which only the chosen are kept."""

    def __init__(self, frames: Iterator[av.VideoFrame], until_s: float) -> None:
        self._frames, self._until_s = frames, until_s
        self.decoded_s = 0.0
        self.stopped = ""

    def nearest(self, grid_s: NDArray[np.float64]) -> Iterator[tuple[av.VideoFrame, int]]:
        """Give the frames nearest to the grid and for how many of its times; earlier on a tie."""
        taken, current = 0, None
        for following in self._shown():
            if current is not None:
                # Rounded, so that an exact tie is not decided by the last bit.
                middle_s = round((current.time + following.time) / 2, 9)
                until = int(np.searchsorted(np.round(grid_s, 9), middle_s, side="right"))
                if until > taken:
                    yield current, until - taken
                    taken = until
            current = following
        if current is not None and taken < len(grid_s):
            yield current, len(grid_s) - taken

    def _shown(self) -> Iterator[av.VideoFrame]:
        try:
            for frame in self._frames:
                if frame.time is None:
                    continue
                self.decoded_s = frame.time + float((frame.duration or 0) * (frame.time_base or 0))
                yield frame
                # Not sooner, where sound ends before the pictures: how long they are is checked.
                if frame.time >= self._until_s:
                    return
        except av.FFmpegError as error:
            self.stopped = str(error)


def _image(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """Return [H, W, 3] RGB, upright."""
    image = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
    return np.rot90(image, frame.rotation // 90)


def _track(
    container: av.container.InputContainer,
    stream: av.AudioStream | av.VideoStream,
    decoded_s: float,
    seconds: float,
    stopped: str,
) -> _Track:
    """Compare what was decoded with what the file says it has, up to the nominal length."""
    stated_s = (stream.duration or 0) * float(stream.time_base or 0)
    return _Track(
        name=stream.type,
        decoded_s=decoded_s,
        expected_s=min(seconds, stated_s),
        file_s=min(seconds, (container.duration or 0) / av.time_base),
        stopped=stopped,
    )


def _because(stopped: str) -> str:
    return f" ({stopped})" if stopped else ""
