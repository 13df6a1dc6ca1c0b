"""Several caches as one: the classes of the second after those of the first, and so on.

Shapes: N clips of all caches; B requested clips.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avcil.cache.errors import CannotJoin
from avcil.cache.format.layout import manifest_digest
from avcil.cache.format.load import Rows
from avcil.cache.format.quantize import MODALITIES, Modality
from avcil.cache.names import printable
from avcil.cache.reader import FeatureStore
from avcil.cache.schema import Manifest, Storage

EXAMPLES = 3


class JoinedReader:
    """Reads the tokens of one modality from several caches."""

    def __init__(
        self, stores: Sequence[FeatureStore], modality: Modality, order: NDArray[np.int64]
    ) -> None:
        """Prepare to read.

        Args:
            stores: the caches.
            modality: of the tokens.
            order: [N] row of each clip, counted through all caches.
        """
        self._stores, self._modality, self._order = stores, modality, order
        self._starts = np.cumsum([0, *map(len, stores)])

    def read(self, rows: NDArray[np.int64], out: NDArray[np.generic]) -> None:
        """Read the clips of `rows` [B] into `out` [B, T, D]."""
        counted = self._order[rows]
        part = np.searchsorted(self._starts, counted, "right") - 1  # [B]
        for number in np.unique(part):
            chosen = part == number
            out[chosen] = self._stores[number].load_tokens(
                self._modality, counted[chosen] - self._starts[number]
            )


def open_joined(*paths: Path | str, complete: bool = True) -> FeatureStore:
    """Open caches as one; see `join_stores` and `FeatureStore.open`."""
    return join_stores([FeatureStore.open(path, complete=complete) for path in paths])


def _open_partly(*paths: str) -> FeatureStore:
    return open_joined(*paths, complete=False)


def join_stores(stores: Sequence[FeatureStore]) -> FeatureStore:
    """Return caches as one.

    The rows are those of a single cache whose classes are in this order, so training gives the same
    bits on both.

    Args:
        stores: one or more caches.

    Raises:
        CannotJoin: two of them share a class or a clip, or differ in encoder or its settings.
    """
    if len(stores) == 1:
        return stores[0]
    _check(stores)
    starts = np.cumsum([0, *(len(store.manifest.classes) for store in stores)])
    manifests = [store.manifest for store in stores]
    clips = [
        (split, int(label + start), clip)
        for manifest, start in zip(manifests, starts, strict=False)
        for split, label, clip in zip(manifest.splits, manifest.labels, manifest.ids, strict=True)
    ]
    manifest = Manifest.of(
        "+".join(dict.fromkeys(each.dataset for each in manifests)),
        tuple(name for each in manifests for name in each.classes),
        clips,
    )
    row_of = {clip: row for row, (_, _, clip) in enumerate(clips)}
    order = np.array([row_of[clip] for clip in manifest.ids], np.int64)
    header = replace(
        stores[0].header,
        dataset=manifest.dataset,
        classes=manifest.classes,
        clips=len(manifest),
        manifest=manifest_digest(manifest),
        storage=Storage(),
    )
    return FeatureStore(
        header,
        manifest,
        _join_rows(stores, order),
        {modality: [JoinedReader(stores, modality, order)] for modality in MODALITIES},
        [path for store in stores for path in store.paths],
        _open_partly,
    )


def _join_rows(stores: Sequence[FeatureStore], order: NDArray[np.int64]) -> Rows:
    return Rows(
        status=np.concatenate([store.status for store in stores])[order],
        lengths={
            modality: np.concatenate([store.lengths[modality] for store in stores])[order]
            for modality in MODALITIES
        },
        crc32c={},
        failures={clip: why for store in stores for clip, why in store.failures.items()},
        notes={clip: note for store in stores for clip, note in store.notes.items()},
        error={
            modality: np.concatenate([store.error[modality] for store in stores])[order]
            for modality in MODALITIES
        },
    )


def _check(stores: Sequence[FeatureStore]) -> None:
    first = stores[0]
    for store in stores[1:]:
        ours, theirs = asdict(first.encoding), asdict(store.encoding)
        different = [
            f"{name} {ours[name]!r} and {theirs[name]!r}"
            for name in ours
            if ours[name] != theirs[name]
        ]
        if different:
            raise CannotJoin(
                f"{first.where} and {store.where} were made by different encoders or settings: "
                f"{', '.join(different)}; extract one of them again with the encoder of the other"
            )
    for what, names in (
        ("classes", [name for store in stores for name in store.manifest.classes]),
        ("clips", [clip for store in stores for clip in store.manifest.ids]),
    ):
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            shown = ", ".join(printable(name) for name in twice[:EXAMPLES])
            raise CannotJoin(
                f"{', '.join(store.where for store in stores)} share {len(twice)} {what}: {shown}"
                f"{', ...' if len(twice) > EXAMPLES else ''}; every class and clip must be in one "
                "cache only"
            )
