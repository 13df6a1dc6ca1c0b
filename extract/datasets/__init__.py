"""The data sets by name: how each is found on disk, and what suits it by default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from avcil.extract.datasets import own, published
from avcil.extract.datasets.base import Clip, Dataset, Where
from avcil.extract.errors import DatasetError

__all__ = ["DATASETS", "Benchmark", "Clip", "Dataset", "Where", "load_dataset"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """A data set that can be asked for by name."""

    load: Callable[[Where], Dataset]
    about: str
    encoder: str = "sam-audio"
    seconds: float = 10.0
    """Nominal length of its clips."""
    visual_rate_hz: float = 25.0
    published: bool = False
    """Its lists and clips are others' and lie on disk under its name."""


DATASETS: dict[str, Benchmark] = {
    "demo": Benchmark(
        load=own.load_demo,
        about="ten built-in classes, rendered on the spot",
        encoder="tiny",
        seconds=2.0,
        visual_rate_hz=8.0,
    ),
    "ave": Benchmark(load=published.AVE.load, about="AVE: 28 classes, 4,079 clips", published=True),
    "ks": Benchmark(
        load=published.KINETICS_SOUNDS.load,
        about="Kinetics-Sounds: 30 classes, 23,125 clips",
        published=True,
    ),
    "vs100": Benchmark(
        load=published.VGGSOUND_100.load,
        about="VGGSound-100: 100 classes, 61,195 clips",
        published=True,
    ),
    "folder": Benchmark(load=own.load_folder, about="DIR/<split>/<class>/* or DIR/<class>/*"),
    "csv": Benchmark(load=own.load_csv, about="a table with the columns path,label,split"),
}


def benchmark(name: str) -> Benchmark:
    """Return what is known about a data set.

    Raises:
        DatasetError: no data set has this name.
    """
    if name not in DATASETS:
        raise DatasetError(f"unknown data set {name!r}; choose one of {', '.join(DATASETS)}")
    return DATASETS[name]


def load_dataset(name: str, where: Where) -> Dataset:
    """List the clips of a data set.

    Raises:
        DatasetError: no data set has this name, or files of it are missing or wrong.
    """
    return benchmark(name).load(where)
