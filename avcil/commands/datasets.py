"""`avcil datasets`: the available data sets, what is on disk, what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from avcil.api.caches import cache_path
from avcil.commands.options import DATA

if TYPE_CHECKING:
    from avcil.extract.datasets import Dataset


def datasets(data: DATA = Path("data")) -> None:
    """Show the available data sets and how many of their clips are on disk.

    The files of a data set are in DATA/NAME: clips in `videos`, published lists in `splits`, and
    the cache in `features.zarr`. If something is missing, the output shows which files were
    expected and where to get them.

    ```
    avcil datasets
    avcil datasets --data /mnt/benchmarks
    ```
    """
    from avcil.benchmarks.cards import cards
    from avcil.extract.datasets import DATASETS, Where, describe
    from avcil.extract.errors import DatasetError

    for name in DATASETS:
        known = describe(name)
        print(f"{name}: {known.about}")
        if not known.published:
            continue
        try:
            _show(known.load(Where(data=data)), cards()[name].clips)
        except DatasetError as error:
            print(f"  {error}")
        if cache_path(data, name).exists():
            print(f"  cache: {cache_path(data, name)}")


def _show(dataset: Dataset, published: Mapping[str, int]) -> None:
    """Print how many clips of each split are on disk, and how many share a video with training."""
    from avcil.cache.sources import shared_videos

    there = Counter(clip.split for clip in dataset.clips if clip.path.is_file())
    listed = Counter(clip.split for clip in dataset.clips)
    counts = ", ".join(f"{there[split]} of {count} {split}" for split, count in listed.items())
    print(f"  on disk: {counts}")
    if listed != Counter(published):
        expected = ", ".join(f"{count} {split}" for split, count in published.items())
        print(f"  these are not the lists of the published tables, which have {expected}")
    empty = {*dataset.classes} - {clip.label for clip in dataset.clips if clip.path.is_file()}
    if empty:
        shown = ", ".join(sorted(empty)[:5]) + (" ..." if len(empty) > 5 else "")
        print(f"  {len(empty)} of {len(dataset.classes)} classes have no clip: {shown}")
    if shared := shared_videos(dataset.manifest()):
        print(f"  {shared}")
