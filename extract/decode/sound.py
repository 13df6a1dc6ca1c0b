"""The sound of a file: every block of samples at its own time.

Shapes: C channels; S samples.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate, chain, pairwise

import av
import numpy as np
from numpy.typing import NDArray

from avcil.extract.decode.tracks import Track
from avcil.extract.errors import MediaError

RESAMPLING_MARGIN_S = 0.1
"""Sound decoded beyond the nominal length, so that the resampler's filter sees past the cut."""
SMALLEST_GAP_S, SMALLEST_OVERLAP_S = 0.015, 0.04
"""Containers round times, to milliseconds or to whole blocks: less than this is neither."""
BLOCKS_AHEAD = 24
"""So many blocks must agree on a gap or an overlap: the times of single ones are often wrong."""
LARGEST_RATIO = 2000
"""Of two sample rates, in whole numbers; beyond, the table of the resampler needs gigabytes."""


@dataclass(frozen=True, slots=True)
class _Block:
    """Samples as they were decoded."""

    time_s: float | None
    samples: NDArray[np.float32]  # [C, S]
    rate: int

    @property
    def seconds(self) -> float:
        return self.samples.shape[1] / self.rate


@dataclass(slots=True)
class _Stretch:
    """Blocks without a gap, of one sample rate and one layout."""

    start_s: float
    rate: int
    blocks: list[NDArray[np.float32]] = field(default_factory=list)
    samples: int = 0

    @property
    def end_s(self) -> float:
        return self.start_s + self.samples / self.rate

    def add(self, samples: NDArray[np.float32]) -> None:
        self.blocks.append(samples)
        self.samples += samples.shape[1]


class Sound:
    """The stretches of sound of a file, on the clock of the file."""

    def __init__(self, track: Track, seconds: float) -> None:
        """Decode so many seconds from the first sample on.

        Raises:
            MediaError: nothing can be decoded.
        """
        self.track = track
        self.overlap_s = 0.0
        """Sound left out because its time had been filled already."""
        self.formats: list[str] = []
        self._stretches: list[_Stretch] = []
        for block, starts_s in self._with_starts():
            self._place(block, starts_s)
            if self.end_s - self.start_s >= seconds + RESAMPLING_MARGIN_S:
                break
        if not self._stretches:
            raise MediaError("no sound can be decoded")

    @property
    def start_s(self) -> float:
        """Return when the first sample is heard."""
        return self._stretches[0].start_s

    @property
    def end_s(self) -> float:
        """Return when the last sample has been heard."""
        return self._stretches[-1].end_s

    @property
    def usable(self) -> float:
        """Return the share of the packets that are not damaged."""
        return 1 - self.track.damaged / max(1, self.track.packets)

    def waveform(self, zero_s: float, seconds: float, rate: int) -> NDArray[np.float32]:
        """Return [S] mono samples from a time on; silence where there is none."""
        pieces = [
            (max(0, round((stretch.start_s - zero_s) * rate)), _mono(stretch, rate))
            for stretch in self._stretches
        ]
        end = max(at + len(piece) for at, piece in pieces)
        whole = np.zeros(min(end, round(seconds * rate)), np.float32)
        for at, piece in pieces:
            whole[at : at + len(piece)] = piece[: max(0, len(whole) - at)]
        return whole

    def silence_s(self, until_s: float) -> float:
        """Return for how long, up to a time, there is no sound between the stretches."""
        gaps = (
            min(following.start_s, until_s) - before.end_s
            for before, following in pairwise(self._stretches)
        )
        return sum(max(0.0, gap) for gap in gaps)

    def _blocks(self) -> Iterator[_Block]:
        # Not planar: with eight channels, PyAV takes memory behind the last plane for another one.
        to_float, known = av.AudioResampler(format="flt"), ""
        for frame in self.track.frames():
            if frame.is_corrupt:
                self.track.damaged += 1
                continue
            found = f"{frame.sample_rate} Hz {frame.layout.name}"
            if found + frame.format.name != known:
                to_float, known = av.AudioResampler(format="flt"), found + frame.format.name
            if found not in self.formats:
                self.formats.append(found)
            time_s = frame.time
            for part in to_float.resample(frame):
                samples = np.asarray(part.to_ndarray(), dtype=np.float32)
                channels = samples.reshape(-1, part.layout.nb_channels).T
                yield _Block(time_s, channels, frame.sample_rate)
                time_s = None

    def _with_starts(self) -> Iterator[tuple[_Block, list[float]]]:
        """Give each block, and when it would start by its own time and by those of the next."""
        ahead: deque[_Block] = deque()
        last_s: float | None = None
        tick_s = float(self.track.stream.time_base)  # shorter blocks (TrueHD in mkv) share times
        for block in chain(self._blocks(), [None] * BLOCKS_AHEAD):
            if block is not None:
                same = block.time_s is not None and block.time_s == last_s
                if same and block.seconds > tick_s:
                    self.overlap_s += block.seconds  # the same packet twice
                    continue
                last_s = block.time_s
                ahead.append(block)
            if ahead and (block is None or len(ahead) > BLOCKS_AHEAD):
                before_s = list(accumulate((each.seconds for each in ahead), initial=0.0))
                times_s = [
                    each.time_s - passed_s
                    for each, passed_s in zip(ahead, before_s, strict=False)
                    if each.time_s is not None
                ]
                yield ahead.popleft(), times_s

    def _place(self, block: _Block, starts_s: list[float]) -> None:
        """Put a block behind the one before, unless the next blocks agree on a gap or an overlap.

        Args:
            block: the next.
            starts_s: when it would start by its own time, and by those of the blocks after it.
        """
        if not self._stretches:
            self._begin(block, starts_s[0] if starts_s else self._first_time())
            return
        # The second lowest, since one may be wrong. Where several blocks share one time, those of
        # the others are estimated, and may be too late.
        agreed_s = sorted(starts_s)[:2][-1] - self.end_s if starts_s else 0.0
        late_s = 0.0 if block.time_s is None else block.time_s - self.end_s
        if min(late_s, agreed_s) > SMALLEST_GAP_S:
            self._begin(block, self.end_s + min(late_s, agreed_s))
        elif late_s < -SMALLEST_OVERLAP_S and abs(agreed_s - late_s) < SMALLEST_GAP_S:
            self._cut(block, -late_s)
        else:
            self._begin(block, self.end_s)

    def _cut(self, block: _Block, overlap_s: float) -> None:
        """Add the part of a block that is later than what is there."""
        surplus = min(block.samples.shape[1], round(overlap_s * block.rate))
        self.overlap_s += surplus / block.rate
        if surplus < block.samples.shape[1]:
            rest = _Block(None, block.samples[:, surplus:], block.rate)
            self._begin(rest, self.end_s)

    def _begin(self, block: _Block, time_s: float) -> None:
        """Add a block to the last stretch, or begin another with it."""
        last = self._stretches[-1] if self._stretches else None
        if (
            last is None
            or time_s != last.end_s
            or (last.rate, len(last.blocks[0])) != (block.rate, len(block.samples))
        ):
            last = _Stretch(time_s, block.rate)
            self._stretches.append(last)
        last.add(block.samples)

    def _first_time(self) -> float:
        stream = self.track.stream
        return float((stream.start_time or 0) * stream.time_base)


def _mono(stretch: _Stretch, wanted_rate: int) -> NDArray[np.float32]:
    """Resample each channel alone, then mix: mixing first would not equal the official path."""
    samples = np.concatenate(stretch.blocks, axis=1)
    if stretch.rate != wanted_rate:
        # Seconds of import, which a process that only decodes at the right rate need not pay.
        import torch
        from torchaudio.functional import resample

        ratio = Fraction(wanted_rate, stretch.rate).limit_denominator(LARGEST_RATIO)
        samples = resample(torch.from_numpy(samples), ratio.denominator, ratio.numerator).numpy()
    return samples.mean(axis=0)
