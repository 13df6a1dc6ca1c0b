"""Describe a cache: its origin, counts and size, and a plot of its tokens.

Shapes: B plotted clips; T tokens of D channels.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avcil.cache.errors import CacheUnwritable
from avcil.cache.format.layout import Status
from avcil.cache.format.quantize import MODALITIES, Modality
from avcil.cache.names import printable
from avcil.cache.reader import FeatureStore
from avcil.cache.schema import SPLITS, Split
from avcil.cache.sources import shared_videos
from avcil.cache.storage.local import writable
from avcil.cache.storage.open import open_files

PLOTTED_CLIPS = 200


def provenance(store: FeatureStore, path: Path | str) -> list[tuple[str, str]]:
    """Return (name, value) lines: how the cache was made, and how it is stored."""
    encoding, header = store.encoding, store.header
    storage = header.storage
    encoder = printable(encoding.encoder)
    weights = " (random weights: its results are meaningless)" if encoding.random_weights else ""
    numbers = (
        storage.numbers if storage.numbers == "float16" else f"int8, one scale per {storage.scales}"
    )
    rounding = ", ".join(f"{name} {error:.1e}" for name, error in store.rounding().items())
    shared = shared_videos(store.manifest)
    return [
        ("cache", str(path)),
        ("data set", f"{header.dataset}, {len(header.classes)} classes"),
        ("encoder", f"{encoder}{weights}"),
        ("fingerprint", printable(encoding.fingerprint)),
        ("visual", _shape(encoding.visual_tokens, encoding.visual_width, encoding.visual_rate_hz)),
        ("audio", _shape(encoding.audio_tokens, encoding.audio_width, encoding.audio_rate_hz)),
        ("numbers", f"{numbers}, compression {storage.compression}, rounding {rounding}"),
        ("clips", _progress(store)),
        *([("leaks", shared)] if shared else []),
        ("on disk", _size(open_files(path).size_bytes())),
        ("made", ", ".join([header.created, *map(" ".join, header.software.items())])),
    ]


def _shape(tokens: int, width: int, rate: float) -> str:
    return f"{tokens} x {width} per clip, {rate:g} Hz"


def _progress(store: FeatureStore) -> str:
    states = Counter(store.status.tolist())
    parts = [
        f"{states[Status.STORED]} of {len(store)} with tokens",
        f"{states[Status.FAILED]} failed",
        f"{states[Status.WAITING]} not extracted yet",
        f"{states[Status.REDO]} damaged, to be extracted again",
    ]
    shown = [parts[0], *(part for part in parts[1:] if not part.startswith("0 "))]
    return f"{', '.join(shown)}; {store.header.shards} shards of {store.header.shard_clips}"


def _size(size_bytes: int) -> str:
    size, units = float(size_bytes), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.3g} {units[0]}"


def counts(store: FeatureStore) -> list[tuple[str, dict[Split, int], int]]:
    """Return (class, clips with tokens by split, clips that failed), in class order."""
    splits = np.array([SPLITS.index(split) for split in store.manifest.splits])
    labels, stored = store.manifest.labels, store.status == Status.STORED
    failed = store.status == Status.FAILED
    return [
        (
            name,
            {
                split: int((stored & (labels == label) & (splits == i)).sum())
                for i, split in enumerate(SPLITS)
            },
            int((failed & (labels == label)).sum()),
        )
        for label, name in enumerate(store.manifest.classes)
    ]


def plot(store: FeatureStore, path: Path) -> None:
    """Plot statistics of the tokens of some clips: norms, channels, time.

    They reveal channels that are dead or very large, padding, and cut clips.

    Raises:
        CacheUnwritable: the file cannot be written, or its name has no known ending.
    """
    from matplotlib.figure import Figure

    stored = store.rows()
    rows = stored[:: max(1, len(stored) // PLOTTED_CLIPS)][:PLOTTED_CLIPS]
    figure = Figure(figsize=(11, 6), layout="constrained")
    kinds = figure.canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in kinds:
        raise CacheUnwritable(
            f"cannot draw into {path}: its name must end in .{', .'.join(sorted(kinds))}"
        )
    axes = figure.subplots(len(MODALITIES), 3, squeeze=False)
    for line, modality in zip(axes, MODALITIES, strict=True):
        tokens, valid = _some(store, modality, rows)
        norms = np.linalg.norm(tokens, axis=2)
        line[0].hist(norms[valid], bins=60)
        line[0].set(title=f"{modality}: norms of tokens", xlabel="norm", ylabel="tokens")
        line[1].plot(np.sort(tokens[valid].std(axis=0))[::-1])
        line[1].set(title="standard deviation of channels, sorted", xlabel="rank", ylabel="std")
        total = np.where(valid, norms, 0).sum(axis=0)
        line[2].plot(total / np.maximum(valid.sum(axis=0), 1))
        line[2].set(title="mean norm over the clip", xlabel="token", ylabel="norm")
    title = _drawable(f"{store.header.dataset}, {store.encoding.encoder}: {len(rows)} clips")
    figure.suptitle(title, parse_math=False)
    with writable(path, elsewhere="name a file in an existing folder that you may write to"):
        figure.savefig(path, dpi=120)


def _drawable(text: str) -> str:
    """Escape the characters that the default font lacks."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont("sans"))
    return "".join(
        each if font.get_char_index(ord(each)) else each.encode("unicode_escape").decode()
        for each in text
    )


def _some(
    store: FeatureStore, modality: Modality, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return tokens [B, T, D], and a mask [B, T] that is False for padding."""
    tokens = store.load_tokens(modality, rows).astype(np.float32)
    lengths = store.lengths[modality][rows]
    return tokens, np.arange(tokens.shape[1]) < lengths[:, None]
