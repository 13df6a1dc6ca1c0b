"""Where things lie in a cache, and its header: what the root's zarr.json says.

    features.zarr/
      zarr.json                 header, in the attribute `avcil`; written last when a cache is made
      id/ split/ label/         [N, bytes] [N] [N]: the manifest, one chunk each
      visual/ audio/            [N, T, D]: one chunk a clip, in shards of `shard_clips` clips
      visual_length/ ...        [N]: tokens of each clip, one chunk a shard
      status/                   [N]: see records.py
        records/00000.json      what shard 0 holds; a shard counts as written once this file exists
        lock                    held while a process writes

Records and lock lie in an array's folder because Zarr readers list groups, not arrays: in the
root, zarr-python warns about every file that it does not know.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from avcil.cache.numbers import ArraySpec, Modality, token_arrays
from avcil.cache.schema import FORMAT, Encoding, Manifest, SchemaMismatch, Storage

ROOT = "zarr.json"
RECORDS = "status/records"
LOCK = "status/lock"
RESTORE = "restore it from a copy, or extract again into another path with --cache"


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """Everything about a cache except its rows; made once, never changed."""

    dataset: str
    classes: tuple[str, ...]
    clips: int
    shard_clips: int
    encoding: Encoding
    storage: Storage
    manifest: str
    """SHA-256 of the rows, see `manifest_digest`."""
    software: Mapping[str, str]
    created: str
    """UTC, ISO 8601."""

    @property
    def shards(self) -> int:
        """Return how many shards the clips fill."""
        return math.ceil(self.clips / self.shard_clips)

    def rows(self, shard: int) -> range:
        """Return the rows of one shard; the last may be short."""
        first = shard * self.shard_clips
        return range(first, min(first + self.shard_clips, self.clips))

    @property
    def arrays(self) -> dict[Modality, tuple[ArraySpec, ...]]:
        """Return the arrays of tokens by modality."""
        return token_arrays(self.encoding, self.storage)


def default_shard_clips(clips: int) -> int:
    """Return how many clips a shard takes; a small cache has several, so a kill loses little."""
    return min(128, max(8, math.ceil(clips / 16)))


def manifest_digest(manifest: Manifest) -> str:
    """Return a SHA-256 of classes and rows, in hexadecimal."""
    rows = zip(manifest.ids, manifest.splits, manifest.labels.tolist(), strict=True)
    text = json.dumps([manifest.classes, list(rows)], ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def dump_header(header: Header) -> bytes:
    """Return the root's zarr.json."""
    attributes = {"avcil": {"format": FORMAT, **asdict(header)}}
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return json.dumps(group, indent=2).encode()


def parse_header(raw: bytes, where: str) -> Header:
    """Read the root's zarr.json.

    Raises:
        SchemaMismatch: it is no cache of ours, of another format version, or damaged.
    """
    attributes = _attributes(raw, where)
    if attributes is None:
        raise SchemaMismatch(f"{where} is no cache of avcil: give the path of a features.zarr")
    found = attributes.pop("format", None)
    if found != FORMAT:
        raise SchemaMismatch(
            f"{where} has cache format {found!r}, this version of avcil reads format {FORMAT}: "
            "use the version of avcil that wrote it, or extract again into another path"
        )
    try:
        return _header(attributes)
    except (TypeError, ValueError) as error:
        raise SchemaMismatch(f"the header {where}/{ROOT} is damaged: {error}; {RESTORE}") from error


def is_unfinished(raw: bytes, where: str) -> bool:
    """Tell whether this zarr.json is the bare group that stands before the header is written."""
    return _attributes(raw, where) is None and json.loads(raw).get("attributes") == {}


def is_cache(raw: bytes) -> bool:
    """Tell whether this zarr.json is the header of a cache, whatever its version."""
    try:
        return _attributes(raw, "") is not None
    except SchemaMismatch:
        return False


def _attributes(raw: bytes, where: str) -> dict[str, Any] | None:
    try:
        attributes = json.loads(raw)["attributes"].get("avcil")
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise SchemaMismatch(
            f"{where}/{ROOT} is not the header of a Zarr v3 group; {RESTORE}"
        ) from error
    return attributes if isinstance(attributes, dict) else None


def _header(attributes: dict[str, Any]) -> Header:
    encoding = dict(attributes.pop("encoding"))
    encoding["unit_norm"] = tuple(encoding["unit_norm"])
    classes = tuple(attributes.pop("classes"))
    storage = Storage(**attributes.pop("storage"))
    return Header(encoding=Encoding(**encoding), storage=storage, classes=classes, **attributes)
