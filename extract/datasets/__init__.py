"""Data sets by name: how to find each on disk, and its default settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from avcil.benchmarks.cards import cards
from avcil.extract.datasets.base import Clip, Dataset, Where
from avcil.extract.errors import DatasetError
from avcil.registry import Registry

__all__ = ["DATASETS", "Clip", "Dataset", "Description", "Where", "describe", "load_dataset"]

DATASETS: Registry[Callable[..., Dataset]] = Registry(
    kind="data set",
    built_in={
        **{
            name: "avcil.extract.datasets.published:load_published"
            if card.lists
            else f"avcil.extract.datasets.own:load_{name}"
            for name, card in cards().items()
        },
        "folder": "avcil.extract.datasets.own:load_folder",
        "csv": "avcil.extract.datasets.own:load_csv",
    },
    error=DatasetError,
    group="avcil.datasets",
)
"""Functions from `Where` to `Dataset`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """A data set that can be loaded by name."""

    load: Callable[[Where], Dataset]
    about: str
    encoder: str = "sam-audio"
    seconds: float = 10.0
    """Length to which clips are cut."""
    visual_rate_hz: float = 25.0
    published: bool = False
    """Whether it is a published benchmark, expected on disk in a folder of its name."""


def describe(name: str) -> Description:
    """Return what is known about a data set.

    Raises:
        DatasetError: no data set has this name.
    """
    load: Any = DATASETS[name]
    card = cards().get(name)
    if card is None:
        about = (inspect.getdoc(load) or name).splitlines()[0].rstrip(".")
        return Description(load=partial(_load, name, load), about=about)
    return Description(
        load=partial(load, card) if card.lists else load,
        about=card.about,
        encoder=card.encoder,
        seconds=card.seconds,
        visual_rate_hz=card.visual_rate_hz,
        published=bool(card.lists),
    )


def _load(name: str, load: Callable[[Where], object], where: Where) -> Dataset:
    """Load a data set with a function that may come from another package."""
    with DATASETS.errors_named(name):
        found = load(where)
    if not isinstance(found, Dataset):
        raise DatasetError(
            f"data set {name!r} gave a {type(found).__name__} instead of an "
            "avcil.extract.datasets.Dataset"
        )
    return found


def load_dataset(name: str, where: Where) -> Dataset:
    """List the clips of a data set.

    Raises:
        DatasetError: no data set has this name, or files of it are missing or wrong.
    """
    return describe(name).load(where)
