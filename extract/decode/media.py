"""Decode a file into the frames and the waveform that an encoder is given.

Sound and pictures lie on one clock, which starts where the first of them starts. The waveform says
how long a clip is: there is one visual token for every 1/rate seconds of it, and each takes the
frame nearest to that time, but no frame more than 0.1 s before a player shows it.

Shapes: F distinct frames of H x W pixels; Tv visual tokens; S samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
import numpy as np
from numpy.typing import NDArray

from avcil.extract.decode import notes
from avcil.extract.decode.frames import Frames
from avcil.extract.decode.images import Images
from avcil.extract.decode.sound import Sound
from avcil.extract.decode.tracks import Selection, Track, open_file, select
from avcil.extract.encoders.base import Media, Resizing
from avcil.extract.errors import MediaError

Silent = Literal["refuse", "zeros"]

SAME_START_S = 0.002
"""Tracks that start so close to each other start together: containers round to milliseconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """What to take from a file."""

    seconds: float
    """Nominal length; what lies beyond is cut off."""
    visual_rate_hz: float
    """Visual tokens per second."""
    sample_rate: int
    """Samples per second of the waveform."""
    resizing: Resizing | None = None
    """Size of the frames; without one, they keep that of the file."""
    least_share: float = 0.8
    """A file of which less than this can be decoded is refused."""
    silent: Silent = "refuse"
    """What becomes of a clip without an audio track: a failure, or silence and a note of it."""


def decode(path: Path, sampling: Sampling) -> Media:
    """Decode a clip from its start to its nominal length.

    Raises:
        MediaError: the file is missing, no media file, has no audio or no video track, or too
            little of it can be decoded.
        MemoryError: also where FFmpeg is out of memory.
    """
    _check_file(path)
    try:
        with open_file(path) as container:
            selection = select(container)
        sound = _sound(path, selection, sampling)
        with open_file(path) as container:
            return _clip(Track(container, selection, "video"), sound, sampling, selection.note)
    except MemoryError as error:  # FFmpeg's is an FFmpegError too, and cannot be sent on
        raise MemoryError(str(error)) from error
    except av.FFmpegError as error:
        raise MediaError(f"not a readable media file ({error.strerror})") from error


def _check_file(path: Path) -> None:
    if not path.exists():
        raise MediaError("file is missing")
    if not path.is_file():  # a pipe, whose reader would wait for ever; a folder
        raise MediaError("not a regular file")
    if path.stat().st_size == 0:
        raise MediaError("file is empty")


def _sound(path: Path, selection: Selection, sampling: Sampling) -> Sound | None:
    """Decode the audio track; None where there is none, and that is no failure."""
    if selection.audio is None:
        if sampling.silent == "refuse":
            raise MediaError("no audio track")
        return None
    with open_file(path) as container:
        return Sound(Track(container, selection, "audio"), sampling.seconds)


def _clip(track: Track, sound: Sound | None, sampling: Sampling, note: str) -> Media:
    """Decode the frames nearest to the tokens' times, and put the sound beside them."""
    frames = Frames(track)
    if frames.start_s is None:
        raise MediaError(f"no frame can be decoded{notes.because(track.stopped)}")
    zero_s = _zero(frames.start_s, sound)
    seconds, rate = sampling.seconds, sampling.sample_rate
    if sound is None:
        waveform = np.zeros(round(seconds * rate), np.float32)
    else:
        waveform = sound.waveform(zero_s, seconds, rate)
    grid_s = _grid(len(waveform), sampling)
    images, counts = Images(len(grid_s), sampling.resizing), []
    for frame, count in frames.nearest(grid_s, zero_s, seconds):
        images.add(frame)
        counts.append(count)
    index = np.repeat(np.arange(len(counts)), counts)
    if sound is None:  # as long as the pictures last
        waveform = waveform[: max(1, round((frames.end_s - zero_s) * rate))]
        index = index[: len(_grid(len(waveform), sampling))]
        note = "; ".join(filter(None, ("no audio track: silence instead", note)))
    span = notes.Span(zero_s, seconds, len(waveform) / rate)
    note = notes.check(frames, images, sound, span, sampling.least_share, note)
    return Media(images.taken()[: index[-1] + 1], index, waveform, note)


def _zero(pictures_s: float, sound: Sound | None) -> float:
    """Return where the clip starts, on the clock of the file: with the first track that is used."""
    if sound is None or abs(sound.start_s - pictures_s) <= SAME_START_S:
        return pictures_s
    return min(sound.start_s, pictures_s)


def _grid(samples: int, sampling: Sampling) -> NDArray[np.float64]:
    """Return the time of each visual token: k / rate, as long as there is sound."""
    nominal = max(1, round(sampling.seconds * sampling.visual_rate_hz))
    covered = int(np.ceil(samples * sampling.visual_rate_hz / sampling.sample_rate))
    return np.arange(min(nominal, covered)) / sampling.visual_rate_hz
