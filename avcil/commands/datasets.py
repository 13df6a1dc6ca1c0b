"""`avcil datasets`: what is known, what is on disk, what is missing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from avcil.commands.options import DATA, cache_path

if TYPE_CHECKING:
    from avcil.extract.datasets import Dataset


def datasets(data: DATA = Path("data")) -> None:
    """Show which data sets are known, and which of their clips are on disk.

    A data set lies in DATA/NAME: its clips in `videos`, its published lists in `splits`, its tokens
    in `features.zarr`. Of one that is not there, it says what was looked for and where to get it.

    ```
    avcil datasets
    avcil datasets --data /mnt/benchmarks
    ```
    """
    from avcil.extract.datasets import DATASETS, Where, describe
    from avcil.extract.errors import DatasetError

    for name in DATASETS:
        known = describe(name)
        print(f"{name}: {known.about}")
        if not known.published:
            continue
        try:
            _show(known.load(Where(data=data)))
        except DatasetError as error:
            print(f"  {error}")
        if cache_path(data, name).exists():
            print(f"  cache: {cache_path(data, name)}")


def _show(dataset: Dataset) -> None:
    """Print how many clips of each split are there, and how many share a source with training."""
    from avcil.cache.sources import shared_videos

    there = Counter(clip.split for clip in dataset.clips if clip.path.is_file())
    listed = Counter(clip.split for clip in dataset.clips)
    counts = ", ".join(f"{there[split]} of {count} {split}" for split, count in listed.items())
    print(f"  on disk: {counts}")
    empty = {*dataset.classes} - {clip.label for clip in dataset.clips if clip.path.is_file()}
    if empty:
        shown = ", ".join(sorted(empty)[:5]) + (" ..." if len(empty) > 5 else "")
        print(f"  {len(empty)} of {len(dataset.classes)} classes have no clip: {shown}")
    if shared := shared_videos(dataset.manifest()):
        print(f"  {shared}")
