"""Every figure of a report as a file: which kinds there are, what files are called, progress."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from avcil.incremental.errors import ConfigError
from avcil.incremental.report.labels import told_apart
from avcil.incremental.report.rows import Benchmark, spell_sizes
from avcil.runtime.progress import log, track

if TYPE_CHECKING:
    from avcil.incremental.report.figures.canvas import Size
    from avcil.incremental.report.figures.plots import Draw

Picture = Literal["svg", "pdf", "png"]
SHARED = (
    "accuracy", "forgetting", "validation", "old-new", "tasks", "matrices", "time", "memory",
    "sweep",
)  # fmt: skip
"""Kinds of figures that show all rows of a benchmark."""
OF_A_ROW = ("losses", "epochs", "confusion", "classes", "features", "attention")
"""Kinds of figures of which each row has its own."""
FIGURES = (*SHARED, *OF_A_ROW)
SIZES_UP_TO = 40
"""Most letters of task sizes in the name of a file."""
NAME_UP_TO = 80
"""Most bytes of a row's label in the name of a file, and of the name of its benchmark."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FigureFiles:
    """Which figures to write, and how."""

    folder: Path
    """Created if it is not there."""
    suffix: Picture = "svg"
    only: Sequence[str] = FIGURES
    """Kinds, of `FIGURES`."""
    size: Size = "column"
    """As wide as a column or as the page of a paper."""


def choose_figures(names: str | None) -> Sequence[str]:
    """Return kinds of figures, separated by commas, in the order of `FIGURES`; None is all.

    Raises:
        ConfigError: there is no kind of that name.
    """
    if names is None:
        return FIGURES
    asked = [name.strip() for name in names.split(",")]
    unknown = [name for name in asked if name not in FIGURES]
    if unknown:
        listed = ", ".join(map(repr, unknown))
        raise ConfigError(f"unknown figure {listed}; choose from {', '.join(FIGURES)}")
    return [name for name in FIGURES if name in asked]


def write_figures(found: Sequence[Benchmark], files: FigureFiles) -> int:
    """Write the figures of every benchmark into a folder; return how many.

    Raises:
        ConfigError: the folder cannot be written.
    """
    from avcil.incremental.report.figures.canvas import save

    try:
        files.folder.mkdir(parents=True, exist_ok=True)
        drawn = list(_drawn(found, files))
        with track("figures", len(drawn), "figures") as bar:
            for path, draw in drawn:
                save(draw(files.size), path)
                bar.advance(note=path.name)
    except OSError as error:
        raise ConfigError(
            f"{str(files.folder)!r} cannot be written ({error.strerror}): choose another --figures"
        ) from error
    written = f"wrote {len(drawn)} figures into {files.folder}"
    log(written if drawn else f"no run has data for the figures {', '.join(files.only)}")
    return len(drawn)


def _drawn(found: Sequence[Benchmark], files: FigureFiles) -> Iterator[tuple[Path, Draw]]:
    """Yield the path of every figure and what draws it."""
    from avcil.incremental.report.figures.plots import row_figures, shared_figures

    ending = {"column": "", "page": "-page"}[files.size]
    for benchmark, stem in zip(found, _stems(found), strict=True):
        names = row_names(benchmark)
        for kind in files.only:
            drawn = list(shared_figures(benchmark, kind))
            for row, name in zip(benchmark.rows, names, strict=True):
                drawn += [(f"{what}-{name}", draw) for what, draw in row_figures(row, kind)]
            for what, draw in drawn:
                yield files.folder / f"{stem}-{_plain(what)}{ending}.{files.suffix}", draw


def row_names(found: Benchmark) -> list[str]:
    """Return a name for the files of each row, never the same for two.

    It is the label and does not carry the rank; where labels are long or read alike on a file
    system, a digest of the settings is added.
    """
    labels = [_plain(row.label) for row in found.rows]
    alike = [label.casefold() for label in labels]
    return [
        label
        if label == _cut(label) and alike.count(label.casefold()) == 1
        else f"{_cut(label)}-{row.digest[:6]}"
        for label, row in zip(labels, found.rows, strict=True)
    ]


def _stems(found: Sequence[Benchmark]) -> list[str]:
    """Return what the names of each benchmark's files start with, never the same for two."""
    names = [
        f"{_cut(f'{each.cache.dataset}-{each.cache.encoder}')}-{each.cache.fingerprint[:6]}"
        f"-{len(each.sizes)}tasks"
        for each in found
    ]
    sizes = [f"-{spell_sizes(each.sizes)[:SIZES_UP_TO]}" for each in found]
    clips = [f"-{each.clips}" for each in found]
    stems = [_plain(stem) for stem in told_apart([_plain(name) for name in names], sizes, clips)]
    return [_plain(stem) for stem in told_apart(stems)]


def _cut(name: str) -> str:
    return name.encode("utf-8", "replace")[:NAME_UP_TO].decode("utf-8", "ignore")


def _plain(name: str) -> str:
    """Return a name that is one part of a path on any system."""
    return re.sub(r"[^\w.-]+", "_", name).replace("_-", "-").strip("_.")
