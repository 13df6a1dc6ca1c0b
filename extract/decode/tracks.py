"""The tracks of a file that are used, decoded packet by packet on one clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from avcil.extract.errors import MediaError

TS_DISCONT = 0x200
"""FFmpeg's flag of the formats (MPEG-TS, MPEG-PS) whose clock may jump."""
LARGEST_GAP_S = 10.0
"""Where a file may have several recordings one after the other, a later time is a new clock."""
LARGEST_STEP_BACK_S = 0.5
"""So is an earlier one; less is an overlap, or times that were only estimated."""


def open_file(path: Path) -> av.container.InputContainer:
    """Open a file; titles in an unknown encoding are no reason to refuse it.

    Raises:
        av.FFmpegError: this is no media file.
    """
    return av.open(str(path), metadata_errors="ignore")


@dataclass(frozen=True, slots=True)
class Selection:
    """The positions of the tracks that are used."""

    video: int
    audio: int | None
    note: str


def select(container: av.container.InputContainer) -> Selection:
    """Select the tracks that FFmpeg calls best; the audio track is one that belongs to the video.

    Raises:
        MediaError: there is no video track, or a track's codec is unknown.
    """
    streams = container.streams
    cover = av.stream.Disposition.attached_pic
    videos = [stream for stream in streams.video if not stream.disposition & cover]
    if not videos:
        raise MediaError("no video track")
    best = streams.best("video")
    video = best if best in videos else videos[0]
    audio = streams.best("audio", video) if streams.audio else None
    if streams.audio and audio is None:  # FFmpeg can decode none of them
        audio = streams.audio[0]
    for stream in filter(None, (video, audio)):
        if stream.codec_context is None:
            raise MediaError(f"the codec of the {stream.type} track is unknown")
    notes = (_others("audio", len(streams.audio) - 1), _others("video", len(videos) - 1))
    note = "; ".join(filter(None, notes))
    return Selection(video.index, None if audio is None else audio.index, note)


def _others(kind: str, count: int) -> str:
    if count <= 0:
        return ""
    return f"{count} other {kind} track{'s' if count > 1 else ''} ignored"


class Track:
    """One track of a file, decoded packet by packet: a damaged packet costs no other."""

    def __init__(
        self, container: av.container.InputContainer, selection: Selection, kind: str
    ) -> None:
        """Prepare to decode.

        Args:
            container: just opened.
            selection: the tracks that are used.
            kind: "video" or "audio": which of them to decode.
        """
        self._container, self.kind = container, kind
        self.stream: Any = container.streams[getattr(selection, kind)]
        # The clock of broadcasts and recorders may jump, for all tracks together: follow both.
        jumping = container.format.flags & TS_DISCONT
        both = [container.streams[n] for n in (selection.video, selection.audio) if n is not None]
        self._streams = both if jumping else [self.stream]
        self._clock = _Clock() if jumping else None
        self.stated_s = float((self.stream.duration or 0) * self.stream.time_base)
        """How long the file says that the track lasts; 0 where it does not."""
        start_us, length_us = container.start_time or 0, container.duration or 0
        self.file_end_s = (start_us + length_us) / av.time_base if length_us else 0.0
        self.packets = self.damaged = self.marked = 0
        """Packets; those that cannot be decoded; those that the container marks as incomplete."""
        self.stopped = ""
        """Why reading ended before the end, if it did."""

    @property
    def jumps_s(self) -> list[float]:
        """Return by how much the clock of the file has jumped so far, each time."""
        return self._clock.jumps_s if self._clock else []

    def frames(self) -> Iterator[Any]:
        """Give what can be decoded, with times on the clock of the file."""
        for packet in self._packets():
            try:
                frames = packet.decode()
            except av.FFmpegError:
                self.damaged += 1
            else:
                yield from frames

    def _packets(self) -> Iterator[Any]:
        try:
            for packet in self._container.demux(self._streams):
                if self._clock:
                    self._clock.place(packet)
                if packet.stream is self.stream:
                    self.packets += packet.size > 0
                    self.marked += packet.is_corrupt
                    yield packet
        except av.FFmpegError as error:
            self.stopped = str(error)
        except IndexError:
            # PyAV at the end of a file in whose middle another track has appeared: all packets of
            # the tracks that are used have been given.
            return


@dataclass(slots=True)
class _Clock:
    """One clock for several recordings in one file, each of which has its own."""

    jumps_s: list[float] = field(default_factory=list)
    _ahead_s: Fraction = Fraction(0)
    _expected_s: dict[int, Fraction] = field(default_factory=dict)

    def place(self, packet: Any) -> None:
        """Change a packet's times to those of the first recording's clock."""
        stamp = packet.pts if packet.dts is None else packet.dts
        if stamp is None:
            return
        base = packet.time_base
        time_s = stamp * base - self._ahead_s
        # The first packet of a track is expected where the other track is.
        latest_s = max(self._expected_s.values(), default=time_s)
        jump_s = time_s - self._expected_s.get(packet.stream_index, latest_s)
        if jump_s > LARGEST_GAP_S or jump_s < -LARGEST_STEP_BACK_S:
            known = packet.stream_index in self._expected_s
            if known or abs(jump_s) > LARGEST_GAP_S:
                self._ahead_s += jump_s
                self.jumps_s.append(float(jump_s))
                time_s -= jump_s
        self._expected_s[packet.stream_index] = time_s + (packet.duration or 0) * base
        ticks = round(self._ahead_s / base)
        packet.pts = None if packet.pts is None else packet.pts - ticks
        packet.dts = None if packet.dts is None else packet.dts - ticks
