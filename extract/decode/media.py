"""Decode a file into the frames and the waveform that an encoder is given.

The waveform is the clock: there is one visual token for every 1/rate seconds of it, and each takes
the frame shown nearest to that time.

Shapes: F distinct frames of H x W pixels; Tv visual tokens; S samples; C channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import av
import numpy as np
from numpy.typing import NDArray

from avcil.extract.decode.frames import Film
from avcil.extract.encoders.base import Media
from avcil.extract.errors import MediaError

NOTED_SHARE = 0.95
"""A clip of which less than this was decoded has a note."""
Silent = Literal["refuse", "zeros"]
SILENT_CHOICES: tuple[Silent, ...] = get_args(Silent)

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
    silent: Silent = "refuse"
    """What becomes of a clip without an audio track: a failure, or silence and a note of it."""


def decode(path: Path, sampling: Sampling) -> Media:
    """Decode a clip from its start to its nominal length.

    Raises:
        MediaError: the file is missing, no media file, has no audio or no video track, or too
            little of it can be decoded.
    """
    _check_file(path)
    try:
        sound = _sound(path, sampling)
        samples = round(sampling.seconds * sampling.sample_rate)
        grid = _grid(samples if sound is None else len(sound.waveform), sampling)
        picture = _picture(path, grid, sampling)
    except av.FFmpegError as error:
        raise MediaError(f"not a readable media file ({error.strerror})") from error
    tracks = [picture.track] if sound is None else [sound.track, picture.track]
    _check_lengths(tracks, sampling.least_share)
    notes = [picture.note, *(track.shortfall(NOTED_SHARE) for track in tracks)]
    if sound is None:
        return _silent(picture, sampling, notes)
    return Media(picture.frames, picture.index, sound.waveform, _joined(notes))


def _check_lengths(tracks: list[_Track], least_share: float) -> None:
    """Refuse a clip of which too little was decoded."""
    # Where tracks have no length of their own (webm), the file's is that of the longer one; and a
    # webm file that was cut decodes without any error: only this betrays it.
    longer = max(tracks, key=lambda track: track.decoded_s)
    of_file = replace(longer, expected_s=longer.file_s)
    for track in (*tracks, of_file):
        if shortfall := track.shortfall(least_share):
            raise MediaError(shortfall)


def _silent(picture: _Picture, sampling: Sampling, notes: list[str]) -> Media:
    """Return a clip of silence, as long as its pictures last."""
    length_s = min(sampling.seconds, picture.track.decoded_s)
    samples = max(1, round(length_s * sampling.sample_rate))
    index = picture.index[: len(_grid(samples, sampling))]
    note = _joined(["no audio track: silence instead", *notes])
    return Media(picture.frames[: index[-1] + 1], index, np.zeros(samples, np.float32), note)


def _joined(notes: list[str]) -> str:
    return "; ".join(filter(None, notes))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Track:
    """How much of a track was decoded, and how much of it and of the file there should be."""

    name: str
    decoded_s: float
    expected_s: float
    file_s: float
    stopped: str
    """Why decoding ended before the end, if it did."""

    def shortfall(self, share: float) -> str:
        """Say what is missing if less than this share was decoded, else nothing."""
        if self.decoded_s >= share * self.expected_s:
            return ""
        return (
            f"only {self.decoded_s:.1f} of {self.expected_s:.1f} s of {self.name} can be decoded"
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
    note: str


def _check_file(path: Path) -> None:
    if not path.exists():
        raise MediaError("file is missing")
    if not path.is_file():  # a pipe, whose reader would wait for ever; a folder
        raise MediaError("not a regular file")
    if path.stat().st_size == 0:
        raise MediaError("file is empty")


def _grid(samples: int, sampling: Sampling) -> NDArray[np.float64]:
    """Return the time of each visual token: k / rate, as long as there is sound."""
    nominal = max(1, round(sampling.seconds * sampling.visual_rate_hz))
    covered = int(np.ceil(samples * sampling.visual_rate_hz / sampling.sample_rate))
    return np.arange(min(nominal, covered)) / sampling.visual_rate_hz


def _sound(path: Path, sampling: Sampling) -> _Sound | None:
    """Decode the first audio track to [S] mono samples at the rate asked for.

    None where there is no such track, and that is no failure.
    """
    with av.open(str(path)) as container:
        if not container.streams.audio:
            if sampling.silent == "refuse":
                raise MediaError("no audio track")
            return None
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
        start_s = max(0.0, (container.start_time or 0) / av.time_base)
        film = Film(container.decode(stream), start_s, sampling.seconds)
        chosen = list(film.nearest(grid_s))
        stopped = film.stopped or film.note
        track = _track(container, stream, film.good_s, sampling.seconds, stopped)
    if not chosen:
        raise MediaError(f"no frame can be decoded{_because(film.stopped)}")
    images = [_image(frame) for frame, _ in chosen]
    if len({image.shape for image in images}) > 1:
        raise MediaError("the size of the picture changes within the file")
    index = np.repeat(np.arange(len(chosen)), [count for _, count in chosen])
    return _Picture(np.stack(images), index, track, film.note)


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
    file_s = min(seconds, (container.duration or 0) / av.time_base)
    # Without a length of its own (webm, mkv), a track may be shorter than the file, unless it
    # ended with an error.
    unstated_s = file_s if stopped else 0.0
    return _Track(
        name=stream.type,
        decoded_s=decoded_s,
        expected_s=min(seconds, stated_s) or unstated_s,
        file_s=file_s,
        stopped=stopped,
    )


def _because(stopped: str) -> str:
    return f" ({stopped})" if stopped else ""
