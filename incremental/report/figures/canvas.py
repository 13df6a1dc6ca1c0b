"""Empty figures of a paper's widths, their style and their legends.

Figures are as wide as a column or a page of a paper and are saved without cutting, so they need no
scaling; fonts are embedded in PDF files, and SVG files keep text as text.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from avcil.incremental.report.figures.style import DASHES, LIGHT, SHAPES, Style
from avcil.incremental.report.figures.text import columns, families, literal

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
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.handlelength": 3.2,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "avcil",
    "savefig.dpi": 300,
}
LETTER = 0.062
"""Width of a letter of a legend, inches."""
LINE = 0.155
"""Height of a line of a legend, inches."""
HANDLE = 0.45
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

    width = WIDTHS[size]
    lines = _legend_lines(labels, width) + bool(title)
    figure = Figure(figsize=(width, height + LINE * lines + 0.1), layout="constrained")
    return figure, figure.subplots()


def wrapped(label: str, width: float) -> str:
    """Return a label on as many lines as a legend of a width needs, inches."""
    letters = int((width - HANDLE) / LETTER)
    return "\n".join(textwrap.wrap(literal(label), letters, break_long_words=True)[:4])


def _legend_columns(labels: Sequence[str], width: float) -> int:
    """Return how many entries stand side by side."""
    widest = max(columns(literal(label)) for label in labels) * LETTER + HANDLE
    return max(1, min(len(labels), int(width / widest)))


def _legend_lines(labels: Sequence[str], width: float) -> int:
    if not labels:
        return 0
    across = _legend_columns(labels, width)
    if across > 1:
        return -(-len(labels) // across)
    return sum(wrapped(label, width).count("\n") + 1 for label in labels)


def legend(figure: Figure, axes: Axes, title: str = "") -> None:
    """Put the legend below the axes, where it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    width = figure.get_figwidth()
    figure.legend(
        handles, [wrapped(label, width) for label in labels], loc="outside lower center",
        ncols=_legend_columns(labels, width), title=title or None, columnspacing=1.2,
    )  # fmt: skip


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
