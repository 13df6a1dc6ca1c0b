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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avcil.incremental.errors import RunDamaged
from avcil.runtime.progress import log


@dataclass(frozen=True, kw_only=True, slots=True)
class Attention:
    """Attention of the guided head on one clip."""

    weights: NDArray[np.float32]  # [V, A]
    visual_hz: float
    audio_hz: float
    clip: str
    label: str
    answer: str
    video: Path | None
    """File of the clip, if it is on disk."""

    @property
    def duration_s(self) -> float:
        """Duration covered by visual tokens."""
        return self.weights.shape[0] / self.visual_hz


def kept_attention(folder: Path) -> list[Attention]:
    """Read the attention files of a run, by file name; damaged files are logged and left out."""
    found = []
    for path in sorted((folder / "attention").glob("*.npz")):
        try:
            found.append(read_attention(path))
        except RunDamaged as problem:
            log(f"left out: {problem}")
    return found


def read_attention(path: Path) -> Attention:
    """Read the attention on one clip.

    Raises:
        RunDamaged: the file cannot be read, or the weights of a token do not add up to 1.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
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
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise RunDamaged(f"{path} is not an attention file: {error}") from error
    if weights.ndim != 2 or not np.allclose(weights.sum(axis=1), 1, atol=0.02):
        raise RunDamaged(f"{path}: the weights of each visual token must add up to 1")
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


def find_videos(cache: Path, clips: Sequence[str]) -> dict[str, Path]:
    """Return the files of clips, for those found in the folder `videos` beside the cache."""
    wanted = set(clips)
    return {
        path.stem: path.resolve()
        for path in sorted((cache.parent / "videos").rglob("*"))
        if path.stem in wanted and path.is_file()
    }
