"""Read uncompressed shards by position: each clip's bytes go directly into the result.

A shard consists of the chunks of its clips, each followed by its CRC32C, and at the end an index of
(offset, bytes) pairs with its own CRC32C. zarr-python reads this correctly but takes 5 to 8 s of
CPU time per GB; here one `preadv` reads several neighboring clips, each into its row of the result,
and their checksums into a separate buffer (measurements: docs/cache.md).

Shapes: B requested rows; [T, D] one clip's chunk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from avcil.cache.errors import ShardDamaged, ShardMissing
from avcil.cache.format.layout import Header
from avcil.cache.format.quantize import ArraySpec
from avcil.cache.storage.local import readable

CHECKSUM_BYTES = 4
CALL_BYTES = 2 << 20  # so that a call's clips are still in the CPU cache when they are checked
CALL_CLIPS = 256  # two buffers per clip, and the kernel allows 1024
JOB_BYTES = 64 << 20  # one shard: smaller jobs on one file disturb the read-ahead of cold files
THREADS = 4
OPEN_SHARDS = 64

Checksums = NDArray[np.uint32]  # [N] of one array, by row
Bytes = NDArray[np.uint8]
Damage = ShardDamaged | ShardMissing


@dataclass(frozen=True, slots=True)
class Piece:
    """Clips of one shard that one thread reads."""

    shard: int
    inner: list[int]  # positions in the shard, ascending
    outer: list[int]  # positions in the result


class ShardFile:
    """A shard's file and its index; closed with the last reference."""

    def __init__(self, path: Path, clips: int) -> None:
        self.fd = os.open(path, os.O_RDONLY)
        size = os.fstat(self.fd).st_size
        raw = os.pread(self.fd, 16 * clips + CHECKSUM_BYTES, max(size - 16 * clips - 4, 0))
        if len(raw) != 16 * clips + 4 or _crc(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
            raise ValueError("its index is damaged or cut off")
        index = np.frombuffer(raw[:-4], dtype="<u8").reshape(clips, 2)
        self.offsets: list[int] = index[:, 0].tolist()
        self.sizes: list[int] = index[:, 1].tolist()

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


def _crc(content: Any) -> int:
    return int(google_crc32c.value(content))


class ShardReader:
    """One array of a local cache, read by position."""

    def __init__(
        self,
        folder: Path,
        header: Header,
        spec: ArraySpec,
        checksums: Checksums,
        name: Callable[[int], str],
    ) -> None:
        self._folder, self._header, self._spec = folder / spec.name / "c", header, spec
        self._checksums, self._name = checksums, name
        self._open = lru_cache(maxsize=OPEN_SHARDS)(self._open_shard)

    def read(self, rows: NDArray[np.int64], out: NDArray[np.generic]) -> None:
        """Fill `out` [B, T, D], C-contiguous, with the clips of `rows` [B] in any order.

        Raises:
            ShardMissing, ShardDamaged: a clip cannot be read; the content of `out` is undefined.
            CacheUnreadable: the file system refuses to read the file.
        """
        if not len(rows):
            return
        target = out.reshape(len(rows), -1).view(np.uint8)
        pieces = list(self._pieces(rows))
        with readable(self._folder):
            if len(pieces) == 1:
                self._read_piece(pieces[0], target)
                return
            with ThreadPoolExecutor(THREADS) as pool:
                for _ in pool.map(lambda piece: self._read_piece(piece, target), pieces):
                    pass

    def _pieces(self, rows: NDArray[np.int64]) -> Iterator[Piece]:
        """Split the rows, in ascending order, by shard and into jobs of at most JOB_BYTES."""
        order = np.argsort(rows, kind="stable")
        shards, inner = np.divmod(rows[order], self._header.shard_clips)
        most = max(1, JOB_BYTES // self._spec.chunk_bytes)
        edges = np.flatnonzero(np.diff(shards)) + 1
        for part in np.split(np.arange(len(rows)), edges):
            for first in range(0, len(part), most):
                some = part[first : first + most]
                yield Piece(int(shards[some[0]]), inner[some].tolist(), order[some].tolist())

    def _read_piece(self, piece: Piece, target: Bytes) -> None:
        shard, size = self._shard(piece), self._spec.chunk_bytes
        for i, position in enumerate(piece.inner):
            if shard.sizes[position] != size + CHECKSUM_BYTES:
                raise self._damaged(piece, i, "its chunk is missing")
        clips = [target[position] for position in piece.outer]
        stored = np.empty(len(clips), "<u4")
        ends = memoryview(cast("Any", stored.view(np.uint8)))
        for part in self._calls(shard, piece.inner):
            self._read_call(shard, piece, part, clips, ends)
            self._check(piece, part, clips, stored)

    def _calls(self, shard: ShardFile, inner: Sequence[int]) -> Iterator[range]:
        """Split a piece into ranges of clips that are contiguous in the file."""
        most = min(max(1, CALL_BYTES // self._spec.chunk_bytes), CALL_CLIPS)
        step = self._spec.chunk_bytes + CHECKSUM_BYTES
        first = 0
        for i in range(1, len(inner) + 1):
            if (
                i == len(inner)
                or i - first == most
                or shard.offsets[inner[i]] != shard.offsets[inner[i - 1]] + step
            ):
                yield range(first, i)
                first = i

    def _read_call(
        self, shard: ShardFile, piece: Piece, part: range, clips: list[Bytes], ends: memoryview
    ) -> None:
        """Read contiguous clips into their rows of the result, and their checksums into `ends`."""
        buffers: list[Any] = []
        for i in part:
            buffers += (clips[i], ends[4 * i : 4 * i + 4])
        wanted = (self._spec.chunk_bytes + CHECKSUM_BYTES) * len(part)
        if not _fill(shard.fd, buffers, shard.offsets[piece.inner[part[0]]], wanted):
            raise self._damaged(piece, part[0], "the file ends before it")

    def _check(
        self, piece: Piece, part: range, clips: list[Bytes], stored: NDArray[np.uint32]
    ) -> None:
        """Compare the clips with their checksums in the shard and in the record."""
        for i in part:
            clips[i].flags.writeable = False  # google_crc32c accepts nothing else; the view is ours
            computed = google_crc32c.value(clips[i])
            if computed != stored[i]:
                raise self._damaged(piece, i, "its checksum differs")
            if computed != self._checksums[self._row(piece, i)]:
                raise self._damaged(piece, i, "it is intact, but not the clip that was committed")

    def _shard(self, piece: Piece) -> ShardFile:
        try:
            return self._open(piece.shard)
        except FileNotFoundError as error:
            raise self._damaged(piece, 0, "the file is gone", ShardMissing) from error
        except ValueError as error:
            raise self._damaged(piece, 0, str(error)) from error

    def _open_shard(self, shard: int) -> ShardFile:
        return ShardFile(self._path(shard), self._header.shard_clips)

    def _path(self, shard: int) -> Path:
        return self._folder / str(shard) / "0" / "0"

    def _row(self, piece: Piece, i: int) -> int:
        return piece.shard * self._header.shard_clips + piece.inner[i]

    def _damaged(
        self,
        piece: Piece,
        i: int,
        what: str,
        kind: type[ShardDamaged | ShardMissing] = ShardDamaged,
    ) -> Damage:
        where = str(self._path(piece.shard))
        return damage(where, self._name(self._row(piece, i)), what, kind)


def damage(
    where: str, clip: str, what: str, kind: type[ShardDamaged | ShardMissing] = ShardDamaged
) -> Damage:
    """Return an error that names the clip, the damage and the remedy."""
    error = kind(
        f"{where}: {clip} cannot be read: {what}; run `avcil cache verify --repair`, "
        "then `avcil extract` again"
    )
    error.what = what
    return error


def _fill(fd: int, buffers: list[Any], offset: int, wanted: int) -> bool:
    """Fill the buffers, in several calls if needed; return False if the file ends first."""
    while count := os.preadv(fd, buffers, offset):
        if count == wanted:
            return True
        wanted, offset = wanted - count, offset + count
        while count >= len(buffers[0]):
            count -= len(buffers.pop(0))
        buffers[0] = memoryview(buffers[0])[count:]
    return False
