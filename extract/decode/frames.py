"""The frames of a video in the order in which they are shown, and which of them are needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice, pairwise

import av
import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray

from avcil.extract.decode.tracks import Track

USUAL_RATE_HZ = 25.0
STEADY, STEADY_SHARE = 0.1, 0.9
"""A rate is constant if so many steps differ from the usual one by less than this share of it."""
LARGEST_LEAD_S = 0.1
"""No frame is used for a token so much earlier than a player shows it."""
MOST_WITHOUT_TIME = 32
"""Frames without a time that wait for the first one with a time."""
LARGEST_RATE_HZ = 240
"""What a file states beyond is the precision of its times, not a rate of frames."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """A frame and when it is shown, in seconds on the clock of the file."""

    frame: av.VideoFrame
    start_s: float
    end_s: float


class Frames:
    """Frames in the order in which they are shown, each at its own time."""

    def __init__(self, track: Track) -> None:
        """Decode up to the first frame that is whole."""
        self.track = track
        rates = (track.stream.average_rate, track.stream.guessed_rate)
        stated = (float(rate) for rate in rates if rate and rate <= LARGEST_RATE_HZ)
        self._usual_s = 1 / next(stated, USUAL_RATE_HZ)
        self.used = self.damaged = self.dependent = self.unordered = 0
        self.left_out_end_s = 0.0
        """Until when frames that were left out would have been shown."""
        self._steps_s: list[float] = []
        self._shown = self._in_order()
        first = next(self._shown, None)
        self._shown = chain([] if first is None else [first], self._shown)
        self.start_s = first.start_s if first else None
        self.end_s = first.end_s if first else 0.0

    @property
    def unusable(self) -> int:
        """Return how many frames could not be decoded, or have no place in time."""
        return self.damaged + self.dependent + self.track.damaged + self.unordered

    @property
    def missing(self) -> int:
        """Return how many frames are not there, which can be told where their rate is constant."""
        # Without the first: it may lie between a time of presentation and one of decoding.
        steps_s = np.array(self._steps_s[1:])
        if not len(steps_s):
            return 0
        steps = steps_s / np.median(steps_s)
        constant = (np.abs(steps - 1) < STEADY).mean() >= STEADY_SHARE
        absent = int((np.round(steps) - 1).clip(0).sum()) if constant else 0
        return max(0, absent - self.unusable - self.track.repeats)

    @property
    def still_s(self) -> float:
        """Return the longest time without a new frame."""
        return max(self._steps_s, default=0.0)

    def nearest(
        self, grid_s: NDArray[np.float64], zero_s: float, until_s: float
    ) -> Iterator[tuple[av.VideoFrame, int]]:
        """Give the frames nearest to the grid and for how many of its times; earlier on a tie.

        Where two are more than 0.2 s apart, the first is used up to 0.1 s before the second.

        Args:
            grid_s: times from `zero_s` on.
            zero_s: where the clip starts on the clock of the file.
            until_s: how long to decode, from there; also where the grid ends sooner, so that it is
                known how much of the file can be decoded.
        """
        taken = 0
        rounded_s = np.round(grid_s, 9)  # or an exact tie would be decided by the last bit
        current: _Shown | None = None
        for following in self._shown:
            self.end_s = following.end_s
            if current is not None:
                middle_s = (current.start_s + following.start_s) / 2
                next_s = max(middle_s, following.start_s - LARGEST_LEAD_S) - zero_s
                until = int(np.searchsorted(rounded_s, round(next_s, 9), side="right"))
                if until > taken:
                    yield current.frame, until - taken
                    taken = until
            current = following
            if current.start_s - zero_s >= until_s:
                break
        if current is not None and taken < len(grid_s):
            yield current.frame, len(grid_s) - taken

    def _in_order(self) -> Iterator[_Shown]:
        """Give the frames whose times ascend, and count the others."""
        times = _Times()
        last_s: float | None = None  # when the last frame was shown
        before_s: float | None = None  # the time of the one before, shown or not
        frames = map(times.see, self._whole())
        head: list[av.VideoFrame] = []
        for early in islice(frames, MOST_WITHOUT_TIME):
            head.append(early)
            if times.best(early) is not None:
                break
        if len(head) > 1 and (known_s := times.best(head[-1])) is not None:
            before_s = known_s - len(head) * self._usual_s
        for frame, following in pairwise(chain[av.VideoFrame | None](head, frames, [None])):
            assert frame is not None
            length_s = float((frame.duration or 0) * (frame.time_base or 0)) or self._usual_s
            expected_s = None if before_s is None else before_s + length_s
            next_s = None if following is None else times.best(following)
            own_s = times.best(frame, expected_s)
            before_s = self._placed(own_s, before_s, next_s, length_s)
            if last_s is not None and before_s <= last_s:
                self.unordered += 1
                continue
            self.used += 1
            if last_s is not None:
                self._steps_s.append(before_s - last_s)
            last_s = before_s
            yield _Shown(frame, last_s, last_s + length_s)

    def _whole(self) -> Iterator[av.VideoFrame]:
        """Give the frames that the decoder did not guess and that refer to no lost one."""
        references = self.track.references
        for frame in self.track.frames():
            dependent = references.refers_to_lost(frame)
            if frame.is_corrupt and frame.pict_type != PictureType.B:
                references.lose(frame)
            if frame.is_corrupt or dependent:
                self.damaged += frame.is_corrupt
                self.dependent += not frame.is_corrupt
                time_s = 0.0 if frame.time is None else frame.time + self._usual_s
                self.left_out_end_s = max(self.left_out_end_s, time_s)
            else:
                yield frame

    def _placed(
        self, time_s: float | None, last_s: float | None, next_s: float | None, length_s: float
    ) -> float:
        """Return when to show a frame: at its time, or between its neighbours if that is wrong."""
        if time_s is not None and not (next_s is not None and (last_s or 0.0) < next_s <= time_s):
            return time_s
        if last_s is not None:
            middle_s = np.inf if next_s is None or next_s <= last_s else (last_s + next_s) / 2
            return min(last_s + length_s, middle_s)
        if next_s is not None:
            return next_s - length_s
        return float((self.track.stream.start_time or 0) * self.track.stream.time_base)


class _Times:
    """The times of frames: of presentation, or of decoding where only these ascend.

    Containers without times of presentation (AVI, ASF with B-frames) give those of decoding as
    such. A decoder hands frames out as they are shown, and the time of decoding of the packet that
    it was given last.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._faults = {"pts": 0, "dts": 0}
        self._rare = False

    def see(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Take note of a frame's times, before they are asked for."""
        self._rare |= frame.pts is None
        for name in self._faults:
            stamp = getattr(frame, name)
            if stamp is not None:
                self._faults[name] += stamp <= self._last.get(name, stamp - 1)
                self._last[name] = stamp
        return frame

    def best(self, frame: av.VideoFrame, expected_s: float | None = None) -> float | None:
        """Return the time of a frame in seconds, if it has one.

        Where only some frames have times (MPEG-PS), these may be those of a neighbour: the one that
        is nearer to what is expected is taken.
        """
        dts_s = None if frame.dts is None else frame.dts * float(frame.time_base or 0)
        if self._rare and expected_s is not None:
            known_s = [time_s for time_s in (frame.time, dts_s) if time_s is not None]
            return min(known_s, key=lambda time_s: abs(time_s - expected_s), default=None)
        if self._faults["pts"] > self._faults["dts"]:
            return dts_s
        return dts_s if frame.pts is None else frame.time
