"""Build one shard in memory: its arrays and its record.

Shapes: S clips of the shard; t, s tokens of a clip.
"""

from __future__ import annotations

from collections.abc import Mapping

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from avcil.cache.format import quantize
from avcil.cache.format.layout import Header, Record, Status
from avcil.cache.format.quantize import MODALITIES, Modality
from avcil.cache.schema import Failure, Tokens


class ShardBuilder:
    """The clips of one shard. A clip that is never added counts as failed."""

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

    def add(self, position: int, clip: str, tokens: Tokens | Failure) -> None:
        """Add the tokens of one clip, or its failure.

        Raises:
            ValueError: its tokens have the wrong shape.
        """
        if isinstance(tokens, Tokens):
            tokens = self._checked(clip, tokens)
        if isinstance(tokens, Failure):
            self.add_failure(position, clip, tokens.reason)
            return
        self._status[position] = Status.STORED
        if tokens.note:
            self.add_note(clip, tokens.note)
        self._encode(position, "visual", tokens.visual)
        self._encode(position, "audio", tokens.audio)

    def _checked(self, clip: str, tokens: Tokens) -> Tokens | Failure:
        """Refuse wrong shapes; turn tokens that overflow float16 into a failure."""
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

    def add_failure(self, position: int, clip: str, reason: str) -> None:
        """Add a clip that has no tokens."""
        self._failures[clip] = reason
        for specs in self._specs.values():
            for spec in specs:
                self._stored[spec.name][position] = quantize.missing(spec)

    def _encode(self, position: int, modality: Modality, tokens: NDArray[np.floating]) -> None:
        specs = self._specs[modality]
        padded = np.zeros(specs[0].tail, tokens.dtype)
        padded[: len(tokens)] = tokens
        stored = quantize.encode(padded, self._header.storage)
        for spec, array in zip(specs, stored, strict=True):
            self._stored[spec.name][position] = array
        self._lengths[modality][position] = len(tokens)
        self._error[modality][position] = _error(stored, self._header, padded)

    def add_stored(
        self,
        position: int,
        stored: Mapping[Modality, tuple[NDArray[np.generic], ...]],
        lengths: Mapping[Modality, int],
        error: Mapping[Modality, NDArray[np.float64]],
    ) -> None:
        """Add one clip as it is stored on disk, in the dtypes of its arrays.

        Args:
            position: of the clip in the shard.
            stored: by modality, one array for each array of the cache.
            lengths: tokens of the clip.
            error: sums of squared rounding errors and of squared values, [2].
        """
        self._status[position] = Status.STORED
        for modality, specs in self._specs.items():
            for spec, array in zip(specs, stored[modality], strict=True):
                self._stored[spec.name][position] = array
            self._lengths[modality][position] = lengths[modality]
            self._error[modality][position] = error[modality]

    def add_note(self, clip: str, text: str) -> None:
        """Record a remark about a clip's tokens, for example that it had no sound."""
        self._notes[clip] = text

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return what is written to each array of the cache."""
        return {
            **self._stored,
            "visual_length": np.array(self._lengths["visual"], np.int32),
            "audio_length": np.array(self._lengths["audio"], np.int32),
            "status": np.array(self._status, np.uint8),
        }

    def record(self) -> Record:
        """Return the record of the shard."""
        return Record(
            shard=self.shard,
            status=[int(status) for status in self._status],
            lengths=self._lengths,
            crc32c={
                name: [google_crc32c.value(clip.tobytes()) for clip in array]
                for name, array in self._stored.items()
            },
            failures=self._failures,
            error={  # four digits, to keep records small
                modality: [[float(f"{value:.4g}") for value in pair] for pair in sums.tolist()]
                for modality, sums in self._error.items()
            },
            notes=self._notes,
        )


def _error(
    stored: tuple[NDArray[np.generic], ...], header: Header, tokens: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the sums of squared rounding errors and of squared values, [2]."""
    restored = np.empty(tokens.shape, np.float16)
    quantize.decode(stored, header.storage, restored)
    true = tokens.astype(np.float32)
    return np.array([np.square(restored - true).sum(), np.square(true).sum()], np.float64)
