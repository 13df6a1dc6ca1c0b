"""The frames of a video in the order in which they are shown, and which of them are needed."""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np
from numpy.typing import NDArray


class Film:
    """Frames in the order in which they are shown, of which only the chosen are kept."""

    def __init__(self, frames: Iterator[av.VideoFrame], start_s: float, until_s: float) -> None:
        """Prepare to look at frames.

        Args:
            frames: as they are decoded.
            start_s: the time at which the file starts; a broadcast's is rarely zero.
            until_s: how long to look, from there.
        """
        self._frames, self._start_s, self._until_s = frames, start_s, until_s
        self._decoded_s = 0.0
        self._good = self._damaged = 0
        self.stopped = ""

    @property
    def good_s(self) -> float:
        """Return how long the frames last that are not damaged."""
        return self._decoded_s * self._good / max(1, self._good + self._damaged)

    @property
    def note(self) -> str:
        """Say how many frames are damaged, if any."""
        frames = self._good + self._damaged
        return f"{self._damaged} of {frames} frames are damaged" if self._damaged else ""

    def nearest(self, grid_s: NDArray[np.float64]) -> Iterator[tuple[av.VideoFrame, int]]:
        """Give the frames nearest to the grid and for how many of its times; earlier on a tie."""
        taken = 0
        current: tuple[av.VideoFrame, float] | None = None
        for following in self._shown():
            if current is not None:
                # Rounded, so that an exact tie is not decided by the last bit.
                middle_s = round((current[1] + following[1]) / 2, 9)
                until = int(np.searchsorted(np.round(grid_s, 9), middle_s, side="right"))
                if until > taken:
                    yield current[0], until - taken
                    taken = until
            current = following
        if current is not None and taken < len(grid_s):
            yield current[0], len(grid_s) - taken

    def _shown(self) -> Iterator[tuple[av.VideoFrame, float]]:
        """Give each frame that is whole, and its time in seconds from the start."""
        try:
            for frame in self._frames:
                if frame.time is None:
                    continue
                time_s = frame.time - self._start_s
                self._decoded_s = time_s + float((frame.duration or 0) * (frame.time_base or 0))
                # What the decoder could only guess is left out; the nearest good frame is taken.
                self._damaged += frame.is_corrupt
                self._good += not frame.is_corrupt
                if not frame.is_corrupt:
                    yield frame, time_s
                # Not sooner, where sound ends before the pictures: how long they are is checked.
                if time_s >= self._until_s:
                    return
        except av.FFmpegError as error:
            self.stopped = str(error)
