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
        waveform = _waveform(path, sampling)
        grid_s = _grid(len(waveform), sampling)
        frames, frame_index = _frames(path, grid_s, sampling)
    except av.FFmpegError as error:
        raise MediaError(f"not a readable media file ({error.strerror})") from error
    return Media(frames=frames, frame_index=frame_index, waveform=waveform)


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


def _waveform(path: Path, sampling: Sampling) -> NDArray[np.float32]:
    """Decode the first audio track to [S] mono samples at the rate asked for."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            raise MediaError("no audio track")
        stream = container.streams.audio[0]
        expected_s = _expected_s(container, stream, sampling.seconds)
        samples, rate, stopped = _samples(container, stream, sampling.seconds)
    _check_share("audio", samples.shape[1] / rate, expected_s, sampling, stopped)
    waveform = _resampled(samples, rate, sampling.sample_rate).mean(axis=0)
    return waveform[: round(sampling.seconds * sampling.sample_rate)]


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


def _frames(
    path: Path, grid_s: NDArray[np.float64], sampling: Sampling
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the distinct frames [F, H, W, 3] nearest to the grid, and [Tv] positions in them."""
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise MediaError("no video track")
        stream = container.streams.video[0]
        stream.thread_type = "NONE"  # a process a core is cheaper than threads
        expected_s = _expected_s(container, stream, sampling.seconds)
        film = _Film(container.decode(stream))
        chosen = list(film.nearest(grid_s))
    if not chosen:
        raise MediaError(f"no frame can be decoded{_because(film.stopped)}")
    _check_share("video", film.decoded_s, expected_s, sampling, film.stopped)
    images = [_image(frame) for frame, _ in chosen]
    if len({image.shape for image in images}) > 1:
        raise MediaError("the size of the picture changes within the file")
    return np.stack(images), np.repeat(np.arange(len(chosen)), [count for _, count in chosen])


class _Film:
    """Frames in the order in which they are shown, of which only the chosen are kept."""

    def __init__(self, frames: Iterator[av.VideoFrame]) -> None:
        self._frames = frames
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
                if taken == len(grid_s):
                    return
            current = following
        if current is not None:
            yield current, len(grid_s) - taken

    def _shown(self) -> Iterator[av.VideoFrame]:
        try:
            for frame in self._frames:
                if frame.time is None:
                    continue
                self.decoded_s = frame.time + float((frame.duration or 0) * (frame.time_base or 0))
                yield frame
        except av.FFmpegError as error:
            self.stopped = str(error)


def _image(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """Return [H, W, 3] RGB, upright."""
    image = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
    return np.rot90(image, frame.rotation // 90)


def _expected_s(
    container: av.container.InputContainer, stream: av.AudioStream | av.VideoStream, seconds: float
) -> float:
    """Return how much of a track there should be up to the nominal length, in seconds."""
    if stream.duration is not None and stream.time_base is not None:
        return min(seconds, float(stream.duration * stream.time_base))
    if container.duration is not None:
        return min(seconds, container.duration / av.time_base)
    return 0.0


def _check_share(
    track: str, decoded_s: float, expected_s: float, sampling: Sampling, stopped: str
) -> None:
    # A webm file that was cut decodes without any error: only its stated length betrays it.
    if decoded_s < sampling.least_share * expected_s:
        raise MediaError(
            f"only {decoded_s:.1f} of {expected_s:.1f} s of {track} can be decoded"
            f"{_because(stopped)}"
        )


def _because(stopped: str) -> str:
    return f" ({stopped})" if stopped else ""
