"""Attention of the guided head on single clips: which sounds guided which frames.

A run folder may hold `attention/<name>.npz` files, one per clip, with these arrays:

    weights     [V, A] attention of visual token v to audio token a; each row adds up to 1
    visual_hz   visual tokens per second
    audio_hz    audio tokens per second
    clip        id
    label       class
    answer      predicted class
    video       path of the clip, or an empty string
"""

from __future__ import annotations

import io
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from avcil.incremental.errors import RunDamaged
from avcil.runtime.progress import log

UNREADABLE = (
    OSError, ValueError, TypeError, KeyError, EOFError, MemoryError, OverflowError, RuntimeError,
    SyntaxError, tokenize.TokenError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What numpy and zipfile raise on a file with wrong bytes."""
SOUND_HZ = 8000
"""Sampling rate at which a clip's sound is read for its waveform."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attention:
    """Attention of the guided head on one clip."""

    weights: NDArray[np.float32]  # [V, A]
    visual_hz: float
    audio_hz: float
    clip: str
    label: str
    """Class; empty if it is not known."""
    answer: str
    video: Path | None
    """File of the clip, if it is on disk."""

    @property
    def duration_s(self) -> float:
        """Duration covered by visual tokens."""
        return self.weights.shape[0] / self.visual_hz


def kept_attention(folder: Path, videos: Path | None = None) -> list[Attention]:
    """Read the attention files of a run, by file name; damaged files are logged and left out.

    Args:
        folder: the run folder.
        videos: a folder in which to look for clips that are not where they were at training.
    """
    found = []
    for path in sorted((folder / "attention").glob("*.npz")):
        try:
            found.append(read_attention(path))
        except RunDamaged as problem:
            log(f"left out: {problem}")
    lost = [each.clip for each in found if each.video is None]
    files = find_videos(videos, lost) if videos and lost else {}
    return [replace(each, video=each.video or files.get(each.clip)) for each in found]


def read_attention(path: Path) -> Attention:
    """Read the attention on one clip.

    Raises:
        RunDamaged: the file cannot be read, or the weights of a token do not add up to 1.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            weights = stored["weights"].astype(np.float32)
            video = Path(str(stored["video"]))
            found = Attention(
                weights=weights,
                visual_hz=float(stored["visual_hz"]),
                audio_hz=float(stored["audio_hz"]),
                clip=str(stored["clip"]),
                label=str(stored["label"]),
                answer=str(stored["answer"]),
                video=video if video.is_file() else None,
            )
    except UNREADABLE as error:
        raise RunDamaged(f"{path} is not an attention file: {error!r}") from error
    if weights.ndim != 2 or not weights.size or not np.allclose(weights.sum(axis=1), 1, atol=0.02):
        raise RunDamaged(f"{path}: the weights of each visual token must add up to 1")
    if not all(0 < rate < np.inf for rate in (found.visual_hz, found.audio_hz)):
        raise RunDamaged(f"{path}: visual_hz and audio_hz must be positive numbers")
    return found


def frames_at(video: Path, times_s: Sequence[float]) -> list[NDArray[np.uint8]]:
    """Return the frames shown at increasing times, [H, W, 3]; beyond the end, the last frame.

    Raises:
        RunDamaged: the file has no frame that can be decoded.
    """
    chosen: list[NDArray[np.uint8]] = []
    shown = None
    for time_s, frame in _frames(video):
        while shown is not None and len(chosen) < len(times_s) and time_s > times_s[len(chosen)]:
            chosen.append(shown)
        shown = frame
    if shown is None:
        raise RunDamaged(f"{video} has no frames")
    return [*chosen, *([shown] * (len(times_s) - len(chosen)))]


def _frames(video: Path) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Yield the time in seconds and the pixels of every frame."""
    import av

    try:
        with av.open(str(video)) as container:
            for frame in container.decode(video=0):
                yield frame.time or 0.0, frame.to_ndarray(format="rgb24").astype(np.uint8)
    except (av.error.FFmpegError, IndexError) as error:
        raise RunDamaged(f"{video} cannot be decoded: {error}") from error


def waveform(video: Path, duration_s: float, points: int) -> NDArray[np.float32]:
    """Return the largest amplitude of a clip's sound in equal parts of its duration, [points].

    Raises:
        RunDamaged: the file has no sound that can be decoded.
    """
    import av

    resampler = av.AudioResampler(format="fltp", layout="mono", rate=SOUND_HZ)
    needed, pieces = int(duration_s * SOUND_HZ), [np.zeros(0, np.float32)]
    try:
        with av.open(str(video)) as container:
            for frame in container.decode(audio=0):
                pieces += [part.to_ndarray()[0] for part in resampler.resample(frame)]
                if sum(map(len, pieces)) >= needed:
                    break
    except (av.error.FFmpegError, IndexError) as error:
        raise RunDamaged(f"the sound of {video} cannot be decoded: {error}") from error
    sound = np.zeros(max(needed, points), np.float32)
    heard = np.concatenate(pieces)[: len(sound)]
    sound[: len(heard)] = np.abs(heard)
    return np.array([part.max() for part in np.array_split(sound, points)], np.float32)


def write_attention(folder: Path, kept: Sequence[Attention]) -> None:
    """Write `attention/<number>.npz` in a run folder for each clip."""
    if not kept:
        return
    (folder / "attention").mkdir(exist_ok=True)
    for number, each in enumerate(kept):
        np.savez(
            folder / "attention" / f"{number:02d}.npz",
            weights=each.weights,
            visual_hz=each.visual_hz,
            audio_hz=each.audio_hz,
            clip=each.clip,
            label=each.label,
            answer=each.answer,
            video=str(each.video or ""),
        )


def find_videos(folder: Path, clips: Sequence[str]) -> dict[str, Path]:
    """Return the files of clips, of those that lie in a folder.

    An id is a file's path within the folder, with or without suffix, or its name alone as in the
    published lists.
    """
    root = folder.resolve()
    found = {clip: root / clip for clip in clips if _lies_within(root, clip)}
    wanted = set(clips) - set(found)
    for path in sorted(root.rglob("*")) if wanted else ():
        for name in _names(path.relative_to(root).as_posix()):
            if name in wanted and path.is_file():
                found.setdefault(name, path)
    return found


def _lies_within(root: Path, clip: str) -> bool:
    """Tell whether an id is the path of a file below a folder; `..` does not lead out of it."""
    parts = PurePosixPath(clip).parts
    try:
        return bool(parts) and ".." not in parts and clip[0] != "/" and (root / clip).is_file()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False


def _names(path: str) -> list[str]:
    """Return the ids that a file may have.

    Published lists name a clip by its YouTube id, alone or with the start in six digits.
    """
    stem = PurePosixPath(path).stem
    padded = re.sub(r"^(.{11})_(\d+)$", lambda found: f"{found[1]}_{int(found[2]):06d}", stem)
    video = re.sub(r"_\d{6}_\d{6}$", "", stem)
    return [str(PurePosixPath(path).with_suffix("")), stem, padded, video]
