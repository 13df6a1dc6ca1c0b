"""The sound of a file: every block of samples at its own time.

Shapes: C channels; S samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, pairwise

import av
import numpy as np
from numpy.typing import NDArray

from avcil.extract.decode.tracks import Track
from avcil.extract.errors import MediaError

RESAMPLING_MARGIN_S = 0.1
"""Sound decoded beyond the nominal length, so that the resampler's filter sees past the cut."""
LEAST_TOLERANCE_S, LARGEST_TOLERANCE_S = 0.015, 0.06
"""Containers round times, to milliseconds or whole blocks: less than this is no gap."""
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

    @property
    def tolerance_s(self) -> float:
        """Return how far its time may be from the end of the block before it.

        A little less than the block: one that is missing, or comes twice, is noticed.
        """
        return min(LARGEST_TOLERANCE_S, max(LEAST_TOLERANCE_S, 0.9 * self.seconds))


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
        blocks = self._blocks()
        for block, following in pairwise(chain(blocks, [None])):
            if block is not None:
                self._place(block, following)
            if self._stretches and self.end_s - self.start_s >= seconds + RESAMPLING_MARGIN_S:
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
        to_float, known = av.AudioResampler(format="fltp"), ""
        for frame in self.track.frames():
            if frame.is_corrupt:
                self.track.damaged += 1
                continue
            found = f"{frame.sample_rate} Hz {frame.layout.name}"
            if found + frame.format.name != known:
                to_float, known = av.AudioResampler(format="fltp"), found + frame.format.name
            if found not in self.formats:
                self.formats.append(found)
            time_s = frame.time
            for part in to_float.resample(frame):
                samples = np.asarray(part.to_ndarray(), dtype=np.float32)
                yield _Block(time_s, samples, frame.sample_rate)
                time_s = None

    def _place(self, block: _Block, following: _Block | None) -> None:
        """Put a block where its time says, or behind the one before if that is near enough."""
        if not self._stretches:
            self._begin(block, self._first_time(block))
            return
        time_s = self.end_s if block.time_s is None else block.time_s
        late_s = time_s - self.end_s
        alone = following is not None and (following.time_s or time_s) < time_s
        if abs(late_s) <= block.tolerance_s or (late_s > 0 and alone):
            self._begin(block, self.end_s)
        elif late_s > 0:
            self._begin(block, time_s)
        else:
            surplus = min(block.samples.shape[1], round(-late_s * block.rate))
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

    def _first_time(self, block: _Block) -> float:
        if block.time_s is not None:
            return block.time_s
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
