"""What prediction returns and draws: a table of classes, and maps of what guided them.

Shapes: C classes learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from avcil.cache.schema import Clips, Encoding, Tokens
from avcil.incremental.errors import ConfigError
from avcil.incremental.runs.attention import Attention
from avcil.incremental.train.trained import Trained

if TYPE_CHECKING:
    import pandas


class Predictions:
    """Rows of a prediction, as they are found."""

    def __init__(self, classes: Sequence[str], top: int) -> None:
        """Prepare for the `top` best of some classes."""
        self._classes, self._top = classes, top
        self._order: list[str] = []
        self._rows: dict[str, list[tuple[int | None, str | None, float | None, str]]] = {}

    def expect(self, clip: str) -> None:
        """Reserve the place of a clip; rows may be added in any order."""
        self._order.append(clip)

    def add(self, clip: str, probabilities: NDArray[np.float64], note: str) -> None:
        """Add the best classes of a clip from their probabilities [C]."""
        best = np.argsort(-probabilities, kind="stable")[: self._top]
        self._rows[clip] = [
            (rank, self._classes[place], float(probabilities[place]), note)
            for rank, place in enumerate(best, start=1)
        ]

    def fail(self, clip: str, reason: str) -> None:
        """Add the reason why a clip has no class."""
        self._rows[clip] = [(None, None, None, reason)]

    def frame(self) -> pandas.DataFrame:
        """Return all rows."""
        import pandas

        order = self._order or list(self._rows)
        rows = [(clip, *row) for clip in order for row in self._rows[clip]]
        names = ["clip", "rank", "class", "probability", "note"]
        return pandas.DataFrame(rows, columns=names).astype({"rank": "Int64", "probability": float})


class Maps:
    """Pictures of which sounds guided which frames."""

    def __init__(self, folder: Path, trained: Trained) -> None:
        """Prepare to draw into a folder.

        Raises:
            ConfigError: audio does not guide video in the head.
        """
        self._folder, self._trained = folder, trained
        self._drawn: set[str] = set()
        if trained.attention(trained.pad([_one_token(trained.encoding)])) is None:
            raise ConfigError(
                f"the head {trained.config.head['name']!r} cannot be explained: audio guides video "
                "in the head 'guided'"
            )

    def draw(self, clips: Sequence[str], tokens: Clips, answers: Sequence[str]) -> None:
        """Draw a picture of each clip.

        Raises:
            ConfigError: the folder cannot be written.
        """
        from avcil.incremental.report.figures.attention import draw_attention
        from avcil.incremental.report.figures.canvas import save

        weights = self._trained.attention(tokens) or []
        encoding = self._trained.encoding
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for clip, map_, answer in zip(clips, weights, answers, strict=True):
                attention = Attention(
                    weights=map_.numpy(),
                    visual_hz=encoding.visual_rate_hz * encoding.tokens_per_frame,
                    audio_hz=encoding.audio_rate_hz,
                    clip=Path(clip).name,
                    label="",
                    answer=answer,
                    video=Path(clip) if Path(clip).is_file() else None,
                )
                save(draw_attention(attention, "page"), self._folder / self._name(clip))
        except OSError as error:
            raise ConfigError(
                f"{str(self._folder)!r} cannot be written ({error.strerror}): choose another folder"
            ) from error

    def _name(self, clip: str) -> str:
        """Return the name of a clip's file, never the same for two."""
        name, count = Path(clip).stem, 1
        while name in self._drawn:
            count += 1
            name = f"{Path(clip).stem}-{count}"
        self._drawn.add(name)
        return f"{name}.png"


def _one_token(encoding: Encoding) -> Tokens:
    return Tokens(np.zeros((1, encoding.visual_width)), np.zeros((1, encoding.audio_width)))
