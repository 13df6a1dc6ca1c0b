"""Features of test clips on a plane, when their classes were learned and after the last task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from avcil.incremental.report.figures.canvas import WIDTHS, Size, drawing
from avcil.incremental.report.figures.text import fitted
from avcil.incremental.report.rows import Row
from avcil.incremental.runs.features import FeatureDrift, kept_features
from avcil.runtime.progress import log

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEWEST = 8
"""Clips for which a plane says something."""


def drift_to_draw(row: Row) -> FeatureDrift | None:
    """Return the features that the first run of a row kept, if they can be drawn."""
    run = row.runs[0]
    drift = kept_features(run.folder, len(run.results.tasks))
    if drift is None or len(drift.positions) < FEWEST or not np.ptp(drift.when_learned, 0).any():
        return None
    try:
        import sklearn  # noqa: F401
    except ImportError:
        log("left out: figures of features need scikit-learn (pip install 'avcil[tsne]')")
        return None
    return drift


def draw_features(drift: FeatureDrift, label: str, size: Size = "column") -> Figure:
    """Draw both moments on one plane, by t-SNE of both together, so that places compare."""
    from matplotlib.figure import Figure

    plane = _plane(np.concatenate([drift.when_learned, drift.at_the_end]))
    halves = np.split(plane, 2)
    title = fitted(label, WIDTHS[size] - 0.2, 8)
    titles = "when its class was learned", "after the last task"
    with drawing([title]):
        figure = Figure(figsize=(WIDTHS[size], WIDTHS[size] / 2 + 0.75), layout="constrained")
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, points, name in zip(panels, halves, titles, strict=True):
            dots = axes.scatter(*points.T, c=drift.positions, cmap="viridis", s=5, linewidths=0)
            axes.set_title(name, fontsize=7)
            axes.set(xticks=[], yticks=[], aspect="equal")
            axes.grid(visible=False)
        bar = figure.colorbar(dots, ax=panels, location="bottom", aspect=40, fraction=0.05)
        bar.set_label("class, in the order of learning", fontsize=7)
        bar.set_ticks([drift.positions.min(), drift.positions.max()], labels=["first", "last"])
        bar.ax.tick_params(labelsize=6)
        bar.outline.set_visible(False)
        figure.suptitle(title, fontsize=8)
    return figure


def _plane(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return places [N, 2] on a plane. Source: van der Maaten and Hinton, JMLR 9, 2008."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(features) - 1) / 3)
    found = TSNE(init="pca", learning_rate="auto", perplexity=perplexity, random_state=0)
    return np.asarray(found.fit_transform(features), np.float32)
