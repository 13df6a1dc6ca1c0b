"""Write a clip as an mp4 file with H.264 video and AAC sound.

Shapes: F frames of H x W pixels; S samples.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def write_mp4(
    path: Path,
    frames: NDArray[np.uint8],
    frame_rate_hz: int,
    waveform: NDArray[np.float32],
    sample_rate: int,
) -> None:
    """Write a clip atomically.

    Args:
        path: the file; its folders are created.
        frames: [F, H, W, 3] RGB; H and W even.
        frame_rate_hz: frames per second.
        waveform: [S] mono, -1..1.
        sample_rate: samples per second.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        # "bitexact" leaves out the date, so that the same clip gives the same bytes.
        options = {"fflags": "+bitexact"}
        with av.open(str(partial), "w", format="mp4", options=options) as container:
            # Both streams first: the header is written with the first packet and lists them.
            video = _video_stream(container, frame_rate_hz, *frames.shape[1:3])
            audio = container.add_stream("aac", rate=sample_rate, layout="mono")
            for image in frames:
                picture = av.VideoFrame.from_ndarray(image, format="rgb24")
                container.mux(video.encode(picture))
            container.mux(video.encode())
            container.mux(audio.encode(_sound(waveform, sample_rate)))
            container.mux(audio.encode())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _video_stream(
    container: av.container.OutputContainer, rate_hz: int, height: int, width: int
) -> av.VideoStream:
    # A constant quantizer and one thread: with "crf", the same frames gave one of three files.
    options = {"preset": "veryfast", "qp": "20", "threads": "1"}
    stream = container.add_stream("libx264", rate=rate_hz, options=options)
    stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
    return stream


def _sound(waveform: NDArray[np.float32], sample_rate: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
    frame.sample_rate, frame.time_base, frame.pts = sample_rate, Fraction(1, sample_rate), 0
    return frame
