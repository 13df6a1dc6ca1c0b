"""Empty figures of a paper's widths, their style and their legends.

Figures are as wide as a column or a page of a paper and are saved without cutting, so they need no
scaling; fonts are embedded in PDF files, and SVG files keep text as text.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from avcil.incremental.report.figures.style import DASHES, LIGHT, SHAPES, Style
from avcil.incremental.report.figures.text import families, width, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Size = Literal["column", "page"]
WIDTHS: dict[Size, float] = {"column": 3.25, "page": 6.75}
"""Inches."""
STYLE: dict[Any, object] = {
    "font.size": 8,
    "text.usetex": False,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 8,
    "axes.formatter.use_mathtext": False,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "lines.markeredgewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 7,  # SMALL
    "legend.title_fontsize": 7,
    "legend.handlelength": 3.2,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "avcil",
    "savefig.dpi": 300,
}
SMALL = 7
"""Points of the type of legends and of the titles of panels."""
LABEL_LINES = 2
"""Most lines of an entry of a legend."""
LINE = 0.155
"""Height of a line of a legend, inches."""
HANDLE = 0.55
"""Width of the line and the space beside a legend's text, inches."""
BAND = "bands: ± one standard deviation"
BAR = "bars: ± one standard deviation"


def drawing(texts: Iterable[str] = ()) -> AbstractContextManager[None]:
    """Return the context in which figures are drawn and saved.

    Args:
        texts: what will be drawn, so that fonts that have it are chosen.
    """
    import matplotlib

    return matplotlib.rc_context({**STYLE, "font.family": families(texts)})


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the path's suffix; the same figure gives the same bytes."""
    dates = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with drawing():
        figure.savefig(path, metadata=dates.get(path.suffix))


def webp(figure: Figure) -> bytes:
    """Return a figure as a WebP picture for a screen."""
    page = io.BytesIO()
    with drawing():
        figure.savefig(page, format="webp", dpi=120, pil_kwargs={"quality": 82, "method": 4})
    return page.getvalue()


def empty(
    size: Size, labels: Sequence[str] = (), height: float = 2.0, title: str = ""
) -> tuple[Figure, Axes]:
    """Return a figure with axes; not pyplot's, which would stay in memory and need a display.

    Args:
        size: its width.
        labels: entries of the legend, whose height is added.
        height: of the figure without legend, inches.
        title: of the legend.
    """
    from matplotlib.figure import Figure

    wide = WIDTHS[size]
    lines = _legend_lines(_entries(labels, wide), wide) + len(_note(title, wide).splitlines())
    figure = Figure(figsize=(wide, height + LINE * lines + 0.1), layout="constrained")
    return figure, figure.subplots()


def legend(figure: Figure, axes: Axes, title: str = "") -> None:
    """Put the legend below the axes, where it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    wide = figure.get_figwidth()
    entries = _entries(labels, wide)
    figure.legend(
        handles, entries, loc="outside lower center", ncols=_legend_columns(entries, wide),
        title=_note(title, wide) or None, columnspacing=1.2,
    )  # fmt: skip


def _entries(labels: Sequence[str], wide: float) -> list[str]:
    """Return labels as a legend shows them: wrapped, and long ones shortened."""
    return [wrapped(label, wide - HANDLE, SMALL, LABEL_LINES) for label in labels]


def _note(text: str, wide: float) -> str:
    return "\n".join(wrapped(line, wide - 0.2, SMALL) for line in text.splitlines())


def _legend_columns(entries: Sequence[str], wide: float) -> int:
    """Return how many entries stand side by side."""
    widest = max(width(line, SMALL) for entry in entries for line in entry.split("\n")) + HANDLE
    return max(1, min(len(entries), int(wide / widest)))


def _legend_lines(entries: Sequence[str], wide: float) -> int:
    if not entries:
        return 0
    return sum(entry.count("\n") + 1 for entry in entries) // _legend_columns(entries, wide) + 1


def line_look(style: Style) -> dict[str, Any]:
    """Return how matplotlib draws a line of a style."""
    dash = DASHES[style.dash]
    return {"color": LIGHT[style.color], "linestyle": (0, dash) if dash else "solid"}


def marker_look(style: Style) -> dict[str, Any]:
    """Return how matplotlib draws a marker of a style."""
    color = LIGHT[style.color]
    return {
        "marker": [*SHAPES[style.shape], SHAPES[style.shape][0]],
        "markerfacecolor": color if style.filled else "white",
        "markeredgecolor": color,
    }
