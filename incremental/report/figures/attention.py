"""Which sounds guided which frames of a clip, with its frames and its waveform if it is on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from avcil.incremental.errors import RunDamaged
from avcil.incremental.report.figures.canvas import WIDTHS, Size, drawing
from avcil.incremental.report.figures.style import LIGHT
from avcil.incremental.report.figures.text import fitted, literal
from avcil.incremental.runs.attention import Attention, frames_at, waveform
from avcil.runtime.progress import log

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

T = TypeVar("T")
FRAMES: dict[Size, int] = {"column": 5, "page": 10}
"""Frames shown of a clip."""
POINTS = 400
"""Points of the waveform."""
FOCUS = "focus: 1 = all weight on one sound, 0 = the same weight on every sound"


def draw_attention(attention: Attention, size: Size = "column") -> Figure:
    """Draw the weights of sounds in each frame: frames, waveform, map and focus over time."""
    from matplotlib.figure import Figure

    width, seconds = WIDTHS[size], attention.duration_s
    frames, sound = _from_clip(attention, FRAMES[size])
    heights = [width / FRAMES[size]] * bool(frames) + [0.45] * (sound is not None) + [1.2, 0.6]
    title, note = _title(attention, width), "\n".join(FOCUS.split(", ")) if width < 5 else FOCUS
    with drawing([title]):
        figure = Figure(figsize=(width, sum(heights) + 1.1), layout="constrained")
        panels = list(figure.subplots(len(heights), 1, height_ratios=heights))
        if frames:
            _strip(panels.pop(0), frames, seconds)
        if sound is not None:
            _wave(panels.pop(0), sound, seconds)
        _map(figure, panels[0], attention)
        _focus(panels[1], attention, note)
        figure.suptitle(title, fontsize=8)
    return figure


def _title(attention: Attention, width: float) -> str:
    right = attention.answer == attention.label
    answer = "classified correctly" if right else f"classified as {literal(attention.answer, 24)}"
    known = f"{literal(attention.label, 24)}, " if attention.label else ""
    lines = attention.clip, f"{known}{answer}"
    return "\n".join(fitted(line, width - 0.2, 8) for line in lines)


def _from_clip(
    attention: Attention, frames: int
) -> tuple[list[NDArray[np.uint8]], NDArray[np.float32] | None]:
    """Return frames at even times and the waveform, as far as the clip is there and decodes."""
    video, seconds = attention.video, attention.duration_s
    if video is None:
        return [], None
    times = [seconds * (i + 0.5) / frames for i in range(frames)]
    return _tried(lambda: frames_at(video, times)) or [], _tried(
        lambda: waveform(video, seconds, POINTS)
    )


def _tried(read: Callable[[], T]) -> T | None:
    """Return what could be read; otherwise report why not and return None."""
    try:
        return read()
    except RunDamaged as problem:
        log(f"left out of an attention figure: {problem}")
        return None


def _strip(axes: Axes, pictures: Sequence[NDArray[np.uint8]], seconds: float) -> None:
    """Show frames side by side over their time."""
    width = seconds / len(pictures)
    for place, picture in enumerate(pictures):
        extent = (place * width, (place + 0.97) * width, 0.0, 1.0)
        axes.imshow(_small(picture), extent=extent, aspect="auto")
    axes.set(xlim=(0, seconds), ylim=(0, 1))
    axes.set_axis_off()


def _small(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a frame of at most 240 pixels a side, by leaving out rows and columns."""
    step = max(1, -(-max(picture.shape[:2]) // 240))
    return picture[::step, ::step]


def _wave(axes: Axes, sound: NDArray[np.float32], seconds: float) -> None:
    times = (np.arange(len(sound)) + 0.5) * seconds / len(sound)
    axes.fill_between(times, -sound, sound, color="#555555", linewidth=0)
    axes.set(xlim=(0, seconds), yticks=[], xticklabels=[])
    axes.set_ylabel("sound", fontsize=7)


def _map(figure: Figure, axes: Axes, attention: Attention) -> None:
    """Show the weight of every sound (down) in every frame (across)."""
    weights, seconds = attention.weights, attention.duration_s
    extent = (0.0, seconds, weights.shape[1] / attention.audio_hz, 0.0)
    image = axes.imshow(
        weights.T, aspect="auto", cmap="magma", vmin=0, extent=extent, interpolation="nearest"
    )
    axes.set(xlim=(0, seconds), xticklabels=[])
    axes.set_ylabel("guiding sound at (s)", fontsize=7)
    axes.grid(visible=False)
    bar = figure.colorbar(image, ax=axes, location="right", pad=0.01, aspect=12)
    bar.set_label("share of weight", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    bar.outline.set_visible(False)


def _focus(axes: Axes, attention: Attention, note: str) -> None:
    """Show one minus the entropy of each frame's weights, relative to that of equal weights."""
    weights = np.clip(attention.weights, 1e-12, None)
    entropy = -(weights * np.log(weights)).sum(axis=1) / np.log(max(2, weights.shape[1]))
    times = (np.arange(len(entropy)) + 0.5) / attention.visual_hz
    axes.plot(times, 1 - entropy, color=LIGHT[2])
    axes.set(xlim=(0, attention.duration_s), ylim=(0, None))
    axes.set_ylabel("focus", fontsize=7)
    axes.set_xlabel(f"frame at (s)\n{note}", fontsize=7)
