"""The tracks of a file that are used, decoded packet by packet on one clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.codec.context import Flags

from avcil.extract.errors import MediaError

TS_DISCONT = 0x200
"""FFmpeg's flag of the formats (MPEG-TS, MPEG-PS) whose clock may jump."""
LARGEST_GAP_S = 10.0
"""Where a file may have several recordings one after the other, a later time is a new clock."""
LARGEST_STEP_BACK_S = 0.5
"""So is an earlier one; less is an overlap, or times that were only estimated."""
MOST_HELD = 100
"""Packets of sound that wait at a jump of the clock for the first frame after it."""


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
        self._clock = _Clock(selection.video) if jumping else None
        self.references = References()
        context = self.stream.codec_context
        context.thread_type, context.thread_count = "NONE", 1  # other cores decode other files
        context.flags |= Flags.copy_opaque
        # Tracks of mkv and webm have no length of their own; FFmpeg may give that of the file.
        own = 0 if "matroska" in container.format.name else self.stream.duration or 0
        self.stated_s = float(own * self.stream.time_base)
        """How long the file says that the track lasts; 0 where it does not."""
        start_us, length_us = container.start_time or 0, container.duration or 0
        # Where tracks have no length of their own (mkv, webm, flv), that of the file counts from 0.
        end_us = length_us + start_us * (self.stated_s > 0)
        self.file_end_s = end_us / av.time_base if length_us else 0.0
        self.packets = self.damaged = self.marked = self.repeats = 0
        """Packets; those that cannot be decoded; those that the container marks as incomplete;
        those without content, for which the last frame stays."""
        self.stopped = ""
        """Why reading ended before the end, if it did."""

    @property
    def jumps_s(self) -> list[float]:
        """Return by how much the clock of the file has jumped so far, each time."""
        return self._clock.jumps_s if self._clock else []

    def frames(self) -> Iterator[Any]:
        """Give what can be decoded, with times on the clock of the file."""
        for packet in self._packets():
            if not packet.size and packet.dts is not None:  # the last one has no time either
                self.repeats += 1
                continue
            self.references.number(packet)
            try:
                frames = packet.decode()
            except MemoryError:  # of FFmpeg: an FFmpegError too
                raise
            except av.FFmpegError:
                self.damaged += 1
                self.references.lose(packet)
            else:
                yield from frames

    def _packets(self) -> Iterator[Any]:
        packets: Iterator[Any] = self._container.demux(self._streams)
        try:
            for packet in self._clock.follow(packets) if self._clock else packets:
                if packet.stream is self.stream:
                    self.packets += packet.size > 0
                    self.marked += packet.is_corrupt
                    yield packet
        except MemoryError:
            raise
        except av.FFmpegError as error:
            self.stopped = error.strerror or str(error)
        except IndexError:
            # PyAV at the end of a file in whose middle another track has appeared: all packets of
            # the tracks that are used have been given.
            return


class References:
    """Which frames refer to a lost one: those decoded after it, up to the next key frame.

    Decoders give such frames without a warning, with whatever picture they had in that place.
    """

    def __init__(self) -> None:
        self._packets = self._keys = 0
        self._key_pts: int | None = None
        self._lost: dict[int, int] = {}

    def number(self, packet: Any) -> None:
        """Number a packet and its group, for the frame that will be decoded from it."""
        self._packets += 1
        if packet.is_keyframe:
            self._keys, self._key_pts = self._keys + 1, packet.pts
        # Frames that are decoded after a key frame and shown before it refer to the group before.
        leading = None not in (packet.pts, self._key_pts) and packet.pts < self._key_pts
        packet.opaque = (self._packets, self._keys - leading)

    def lose(self, item: Any) -> None:
        """Take note of a packet or a frame that could not be decoded."""
        if item.opaque:
            number, group = item.opaque
            self._lost.setdefault(group, number)

    def refers_to_lost(self, frame: Any) -> bool:
        """Tell whether a frame may refer to a lost one."""
        number, group = frame.opaque or (0, 0)
        return bool(number > self._lost.get(group, self._packets))


@dataclass(slots=True)
class _Clock:
    """One clock for several recordings in one file, each of which has its own."""

    video: int
    """Position of the video track: its frames follow each other at a jump."""
    jumps_s: list[float] = field(default_factory=list)
    _ahead_s: Fraction = Fraction(0)
    _ahead_by_track_s: dict[int, Fraction] = field(default_factory=dict)
    _expected_s: dict[int, Fraction] = field(default_factory=dict)

    def follow(self, packets: Iterator[Any]) -> Iterator[Any]:
        """Give packets with times on the first recording's clock.

        Sound that comes after a jump waits for the first frame after it, which follows the last
        frame before it: what sound overlaps is left out later, and no picture stands still.
        """
        held: list[Any] = []
        for packet in packets:
            is_sound = packet.stream_index != self.video and packet.size > 0
            waits = is_sound and self.video in self._expected_s and len(held) < MOST_HELD
            if waits and (held or self._jumps(packet)):
                held.append(packet)
                continue
            if held and (is_sound or not packet.size or self._jumps(packet)):
                group, held = [*held, packet] if is_sound else [packet, *held], []
            else:
                group = [packet]
            for each in group:
                self._place(each)
            # A packet without content ends its track.
            yield from sorted(group, key=lambda each: each.size == 0)
        for packet in held:
            self._place(packet)
            yield packet

    def _late_s(self, packet: Any, ahead_s: Fraction) -> Fraction | None:
        """Return how much later than expected a packet is; None if that cannot be told."""
        stamp = packet.pts if packet.dts is None else packet.dts
        if stamp is None:
            return None
        time_s: Fraction = stamp * packet.time_base - ahead_s
        # The first packet of a track is expected where the other track is.
        latest_s = max(self._expected_s.values(), default=time_s)
        return time_s - self._expected_s.get(packet.stream_index, latest_s)

    def _ahead(self, packet: Any) -> Fraction:
        """Return the clock of a packet's recording: its track's last one, or already the newest."""
        own_s = self._ahead_by_track_s.get(packet.stream_index, self._ahead_s)
        own_late_s, late_s = (self._late_s(packet, each) for each in (own_s, self._ahead_s))
        joins = own_late_s is not None and late_s is not None and abs(late_s) < abs(own_late_s)
        return self._ahead_s if joins else own_s

    def _jumps(self, packet: Any) -> bool:
        late_s = self._late_s(packet, self._ahead(packet))
        if late_s is None:
            return False
        if packet.stream_index not in self._expected_s:
            return abs(late_s) > LARGEST_GAP_S
        joined = self._ahead_by_track_s[packet.stream_index] != self._ahead_s
        least_s = -LARGEST_GAP_S if joined else -LARGEST_STEP_BACK_S
        return late_s > LARGEST_GAP_S or late_s < least_s

    def _place(self, packet: Any) -> None:
        """Change a packet's times to those of the first recording's clock."""
        ahead_s = self._ahead(packet)
        late_s = self._late_s(packet, ahead_s)
        if late_s is None:
            return
        if self._jumps(packet):
            ahead_s += late_s
            self._ahead_s = ahead_s
            self.jumps_s.append(float(late_s))
        base = packet.time_base
        stamp = packet.pts if packet.dts is None else packet.dts
        self._ahead_by_track_s[packet.stream_index] = ahead_s
        self._expected_s[packet.stream_index] = (
            stamp * base - ahead_s + (packet.duration or 0) * base
        )
        ticks = round(ahead_s / base)
        packet.pts = None if packet.pts is None else packet.pts - ticks
        packet.dts = None if packet.dts is None else packet.dts - ticks
