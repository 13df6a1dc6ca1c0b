"""One shard in memory, from tokens to the arrays and the record that are written.

Shapes: S clips of the shard; t, s tokens of a clip.
"""

from __future__ import annotations

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from avcil.cache import numbers
from avcil.cache.files import Files
from avcil.cache.layout import Header
from avcil.cache.numbers import MODALITIES, Modality
from avcil.cache.opening import Rows
from avcil.cache.records import Record, Status
from avcil.cache.schema import Failure, Manifest, Tokens


class Block:
    """The clips of one shard; a clip that is not put has failed."""

    def __init__(self, header: Header, shard: int) -> None:
        self.shard = shard
        self._header = header
        count = len(header.rows(shard))
        self._specs = header.arrays
        self._stored = {
            spec.name: np.empty((count, *spec.tail), spec.dtype)
            for specs in self._specs.values()
            for spec in specs
        }
        self._status = [Status.FAILED] * count
        self._lengths: dict[Modality, list[int]] = {name: [0] * count for name in MODALITIES}
        self._failures: dict[str, str] = {}
        self._notes: dict[str, str] = {}
        self._error = {name: np.zeros((count, 2)) for name in MODALITIES}

    def put(self, position: int, clip: str, tokens: Tokens | Failure) -> None:
        """Enter one clip.

        Raises:
            ValueError: its tokens have the wrong shape.
        """
        if isinstance(tokens, Tokens):
            tokens = self._checked(clip, tokens)
        if isinstance(tokens, Failure):
            self._fail(position, clip, tokens.reason)
            return
        self._status[position] = Status.STORED
        if tokens.note:
            self._notes[clip] = tokens.note
        self._encode(position, "visual", tokens.visual)
        self._encode(position, "audio", tokens.audio)

    def _checked(self, clip: str, tokens: Tokens) -> Tokens | Failure:
        """Refuse wrong shapes; tokens that float16 cannot hold are the clip's failure."""
        for modality, array in zip(MODALITIES, (tokens.visual, tokens.audio), strict=True):
            most, width = self._specs[modality][0].tail
            if array.ndim != 2 or array.shape[1] != width or not 1 <= len(array) <= most:
                raise ValueError(
                    f"{modality} tokens of clip {clip!r} must be [1..{most}, {width}], "
                    f"not {list(array.shape)}"
                )
            with np.errstate(over="ignore"):
                finite = np.isfinite(array.astype(np.float16)).all()
            if not finite:
                return Failure(f"the encoder gave {modality} tokens that are not finite in float16")
        return tokens

    def _fail(self, position: int, clip: str, reason: str) -> None:
        self._failures[clip] = reason
        for specs in self._specs.values():
            for spec in specs:
                self._stored[spec.name][position] = numbers.missing(spec)

    def _encode(self, position: int, modality: Modality, tokens: NDArray[np.floating]) -> None:
        specs = self._specs[modality]
        padded = np.zeros(specs[0].tail, tokens.dtype)
        padded[: len(tokens)] = tokens
        stored = numbers.encode(padded, self._header.storage)
        for spec, array in zip(specs, stored, strict=True):
            self._stored[spec.name][position] = array
        self._lengths[modality][position] = len(tokens)
        self._error[modality][position] = _error(stored, self._header, padded)

    def keep(self, files: Files, rows: Rows, manifest: Manifest, kept: list[int]) -> None:
        """Take clips, by row, from the shard as it lies on disk, checked."""
        from avcil.cache.reader import FeatureStore

        first = self._header.rows(self.shard).start
        store = FeatureStore(files, self._header, manifest, rows)
        for row in kept:
            clip = manifest.ids[row]
            if rows.status[row] == Status.FAILED:
                self._fail(row - first, clip, rows.failures[clip])
                continue
            self._status[row - first] = Status.STORED
            if clip in rows.notes:
                self._notes[clip] = rows.notes[clip]
            for modality in MODALITIES:
                stored = store.read_stored(modality, np.array([row]))
                for spec, array in zip(self._specs[modality], stored, strict=True):
                    self._stored[spec.name][row - first] = array[0]
                self._lengths[modality][row - first] = int(rows.lengths[modality][row])
                self._error[modality][row - first] = rows.error[modality][row]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return what is written to each array of the cache."""
        return {
            **self._stored,
            "visual_length": np.array(self._lengths["visual"], np.int32),
            "audio_length": np.array(self._lengths["audio"], np.int32),
            "status": np.array(self._status, np.uint8),
        }

    def record(self) -> Record:
        """Return what the shard holds."""
        return Record(
            shard=self.shard,
            status=[int(status) for status in self._status],
            lengths=self._lengths,
            crc32c={
                name: [google_crc32c.value(clip.tobytes()) for clip in array]
                for name, array in self._stored.items()
            },
            failures=self._failures,
            error={modality: _short(sums) for modality, sums in self._error.items()},
            notes=self._notes,
        )


def _short(sums: NDArray[np.float64]) -> list[list[float]]:
    """Round to four digits, which keeps records small."""
    return [[float(f"{value:.4g}") for value in pair] for pair in sums.tolist()]


def _error(
    stored: tuple[NDArray[np.generic], ...], header: Header, tokens: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the sums of squared rounding errors and of squared values, [2]."""
    restored = np.empty(tokens.shape, np.float16)
    numbers.decode(stored, header.storage, restored)
    true = tokens.astype(np.float32)
    return np.array([np.square(restored - true).sum(), np.square(true).sum()], np.float64)
