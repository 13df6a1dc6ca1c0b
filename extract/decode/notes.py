"""How much of a clip could be decoded, and what one must know about the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from avcil.extract.decode.frames import Frames
from avcil.extract.decode.images import Images
from avcil.extract.decode.sound import Sound
from avcil.extract.decode.tracks import Track
from avcil.extract.errors import MediaError

NOTED_SHARE = 0.95
"""A clip of which less than this was decoded has a note."""
NOTED_START_S = 0.1
"""A track that starts this much later than the other has a note."""
NOTED_END_S = 0.5
"""So has one that ends this much earlier; the last block of sound is rarely full."""


@dataclass(frozen=True, slots=True)
class Span:
    """The part of a file that is a clip."""

    zero_s: float
    """Where it starts, on the clock of the file."""
    seconds: float
    """Nominal length."""
    sound_s: float
    """Length of the waveform."""


@dataclass(frozen=True, slots=True)
class _Extent:
    """How much of a track was decoded, and how much of it there should be."""

    name: str
    start_s: float
    decoded_s: float
    expected_s: float
    why: str
    """What is wrong with the rest."""

    def shortfall(self, share: float) -> str:
        """Say what is missing if less than this share was decoded, else nothing."""
        if self.decoded_s >= share * self.expected_s:
            return ""
        return (
            f"only {self.decoded_s:.1f} of {self.expected_s:.1f} s of {self.name} can be decoded"
            f"{because(self.why)}"
        )


def because(why: str) -> str:
    """Return a reason in brackets, if there is one."""
    return f" ({why})" if why else ""


def check(
    frames: Frames, images: Images, sound: Sound | None, span: Span, least_share: float, note: str
) -> str:
    """Refuse a clip of which too little can be used, and return all notes of others.

    Raises:
        MediaError: says how much of what.
    """
    extents = [_extent_of_pictures(frames, span)]
    notes = [note, *_of_pictures(frames, images, span)]
    if sound is not None:
        extents.insert(0, _extent_of_sound(sound, span))
        notes += [*_of_lengths(frames, span), *_of_sound(sound, span)]
    # Where tracks have no length of their own (webm), the file's is that of the longer one; and a
    # webm file that was cut decodes without any error: only this betrays it.
    longer = max(extents, key=lambda extent: extent.start_s + extent.decoded_s)
    file_s = _file_s(frames.track, span) - longer.start_s
    whole = _Extent(longer.name, longer.start_s, longer.decoded_s, file_s, longer.why)
    for extent in (*extents, whole):
        if shortfall := extent.shortfall(least_share):
            raise MediaError(shortfall)
    notes += [extent.shortfall(NOTED_SHARE) for extent in extents]
    stopped = (frames.track.stopped, sound.track.stopped if sound else "")
    for why in dict.fromkeys(filter(None, stopped)):
        if not any(why in each for each in notes):
            notes.append(f"reading ended before the end of the file ({why})")
    return "; ".join(filter(None, notes))


def _extent_of_sound(sound: Sound, span: Span) -> _Extent:
    return _extent(sound.track, sound.start_s, sound.end_s, sound.usable, span, _damaged(sound))


def _extent_of_pictures(frames: Frames, span: Span) -> _Extent:
    usable = frames.used / (frames.used + frames.unusable)
    why = "; ".join(_unusable(frames))
    end_s = max(frames.end_s, frames.left_out_end_s)
    return _extent(frames.track, frames.start_s or 0.0, end_s, usable, span, why)


def _extent(
    track: Track, start_s: float, end_s: float, usable: float, span: Span, why: str
) -> _Extent:
    """Compare what was decoded with what the file says it has, up to the nominal length."""
    late_s = start_s - span.zero_s
    left_s = span.seconds - late_s
    if left_s <= 0:
        raise MediaError(f"{track.kind} starts only after {late_s:.1f} s")
    covered_s = min(end_s - start_s, left_s)
    # Without a length of its own (webm, mkv), a track may be shorter than the file, unless reading
    # ended with an error.
    stated_s = track.stated_s or (_file_s(track, span) - late_s if track.stopped else 0.0)
    return _Extent(
        name=track.kind,
        start_s=late_s,
        decoded_s=covered_s * usable,
        expected_s=max(covered_s, min(left_s, stated_s)),
        why="; ".join(filter(None, (track.stopped, why))),
    )


def _file_s(track: Track, span: Span) -> float:
    """Return how long the file lasts from the start of the clip, up to the nominal length."""
    # After a jump of the clock, FFmpeg's length of the file means nothing.
    return 0.0 if track.jumps_s else min(span.seconds, track.file_end_s - span.zero_s)


def _of_lengths(frames: Frames, span: Span) -> Iterator[str]:
    longer_s = min(frames.end_s - span.zero_s, span.seconds) - span.sound_s
    if longer_s < -NOTED_END_S:
        yield f"the pictures end {-longer_s:.1f} s before the sound: the last is shown until then"
    if longer_s > NOTED_END_S:
        yield f"the sound ends {longer_s:.1f} s before the pictures: the clip ends there"


def _of_sound(sound: Sound, span: Span) -> Iterator[str]:
    late_s = sound.start_s - span.zero_s
    if late_s > NOTED_START_S:
        yield f"the sound starts {late_s:.1f} s late: silence until then"
    if silence_s := sound.silence_s(span.zero_s + span.seconds):
        yield f"{silence_s:.2f} s of silence filled in"
    if sound.overlap_s:
        yield f"{sound.overlap_s:.2f} s of overlapping sound left out"
    if len(sound.formats) > 1:
        yield f"the sound changes: {', '.join(sound.formats)}"
    yield _damaged(sound)


def _damaged(sound: Sound) -> str:
    damaged, packets = sound.track.damaged or sound.track.marked, sound.track.packets
    return f"{damaged} of {packets} packets of sound are damaged" if damaged else ""


def _of_pictures(frames: Frames, images: Images, span: Span) -> Iterable[str]:
    late_s = (frames.start_s or 0.0) - span.zero_s
    if late_s > NOTED_START_S:
        yield f"the pictures start {late_s:.1f} s late: the first is shown until then"
    if jumps_s := frames.track.jumps_s:
        shown = ", ".join(f"{jump_s:+.1f} s" for jump_s in jumps_s)
        yield f"the clock jumps ({shown}): taken as one recording"
    if len(images.sizes) > 1:
        yield "the size of the pictures changes"
    yield from _unusable(frames)


def _unusable(frames: Frames) -> Iterator[str]:
    total = frames.used + frames.unusable
    if frames.track.marked:
        yield f"{frames.track.marked} of {total} frames are incomplete in the file"
    if frames.missing:
        yield f"{frames.missing} of {total + frames.missing} frames are missing"
    if damaged := frames.damaged + frames.track.damaged:
        yield f"{damaged} of {total} frames are damaged"
    if frames.dependent:
        yield (
            f"{frames.dependent} of {total} frames refer to damaged ones: the picture stands still "
            f"for up to {frames.still_s:.1f} s"
        )
    if frames.unordered:
        yield f"{frames.unordered} of {total} frames are out of order and left out"
