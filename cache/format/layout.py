"""The files of a cache, its header and its records.

    features.zarr/
      zarr.json                 header, in the attribute `avcil`; written last when a cache is made
      id/ split/ label/         [N, bytes] [N] [N]: the manifest, one chunk each
      visual/ audio/            [N, T, D]: one chunk a clip, in shards of `shard_clips` clips
      visual_length/ ...        [N]: tokens of each clip, one chunk a shard
      status/                   [N]: see Status
        records/00000.json      what shard 0 holds; a shard counts as written once this file exists
        lock                    held while a process writes

Records and lock are in the folder of an array because Zarr readers list groups, not arrays: in the
root, zarr-python would warn about every file that it does not know.

A record is written after its shard, and only then does the shard exist. It holds the status, the
lengths and the checksums of every clip, and the reasons for failures. The checksums are those of
the clips' bytes before compression, so they also reveal a shard that is intact but is not the one
that was committed (a copy of another, an older version).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import IntEnum
from typing import Any

import google_crc32c

from avcil.cache.errors import SchemaMismatch, ShardDamaged
from avcil.cache.format.quantize import ArraySpec, Modality, token_arrays
from avcil.cache.names import check_names
from avcil.cache.schema import FORMAT, Encoding, Manifest, Storage

ROOT = "zarr.json"
RECORDS = "status/records"
RESTORE = "restore it from a copy, or extract again into another path with --cache"


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """Everything about a cache except its rows. Never changes."""

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
        """Return the number of shards."""
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
    """Return the number of clips per shard; a small cache has small shards, to lose little."""
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
        SchemaMismatch: it is not a cache, is of another format version, or is damaged.
    """
    attributes = _attributes(raw, where)
    if attributes is None:
        raise SchemaMismatch(f"{where} is not a cache of avcil: give the path of a features.zarr")
    found = attributes.pop("format", None)
    if found != FORMAT:
        raise SchemaMismatch(
            f"{where} has cache format {found!r}, this version of avcil reads format {FORMAT}: "
            "use the version of avcil that wrote it, or extract again into another path"
        )
    try:
        return _header(attributes)
    except (TypeError, ValueError, LookupError) as error:
        raise SchemaMismatch(f"the header {where}/{ROOT} is damaged: {error}; {RESTORE}") from error


def is_unfinished(raw: bytes, where: str) -> bool:
    """Return whether this zarr.json is the empty group that precedes the header."""
    return _attributes(raw, where) is None and json.loads(raw).get("attributes") == {}


def is_cache(raw: bytes) -> bool:
    """Return whether this zarr.json is the header of a cache of any format version."""
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
    encoding = read_encoding(attributes.pop("encoding"))
    classes = attributes.pop("classes")
    if not isinstance(classes, list):
        raise TypeError(f"classes is {classes!r}")
    storage = Storage(**attributes.pop("storage"))
    header = Header(encoding=encoding, storage=storage, classes=tuple(classes), **attributes)
    _check_values(header)
    check_names(header.dataset, header.classes)
    return header


def read_encoding(stored: Mapping[str, Any]) -> Encoding:
    """Return an encoding that was stored as JSON.

    Raises:
        TypeError, ValueError, LookupError: a field is missing, unknown or of the wrong type.
    """
    encoding = Encoding(**{**stored, "unit_norm": tuple(stored["unit_norm"])})
    _check_values(encoding)
    return encoding


_KINDS: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "bool": bool,
    "tuple[str, ...]": tuple,
}


def _check_values(described: Header | Encoding) -> None:
    """Refuse values that do not have the type of their field, counts below 1, and NaN."""
    for each in fields(described):
        value, kind = getattr(described, each.name), _KINDS.get(str(each.type))
        texts = value if isinstance(value, tuple) else ()
        if kind is None:
            continue
        if (
            not isinstance(value, kind)
            or (isinstance(value, bool) and kind is not bool)
            or (kind is int and value < 1)
            or (isinstance(value, float) and not math.isfinite(value))
            or any(not isinstance(text, str) for text in texts)
        ):
            raise ValueError(f"{each.name} is {value!r}")


class Status(IntEnum):
    """Status of a clip, in the array `status`."""

    WAITING = 0  # not extracted yet; also the fill value of the array
    STORED = 1
    FAILED = 2  # has no tokens; the record holds the reason
    REDO = 3  # found damaged, to be extracted again


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """The content of one shard, clip by clip."""

    shard: int
    status: list[int]
    lengths: dict[Modality, list[int]]  # tokens of each clip
    crc32c: dict[str, list[int]]  # by array: checksum of each clip's bytes before compression
    failures: dict[str, str]  # id -> reason
    error: dict[Modality, list[list[float]]]
    """By modality and clip: sum of squared rounding errors and sum of squared values."""
    notes: dict[str, str] = field(default_factory=dict)
    """Remarks about tokens, by id; left out of the file if there are none."""

    def redo(self) -> list[int]:
        """Return the positions in the shard of the clips to be extracted again."""
        return [i for i, status in enumerate(self.status) if status == Status.REDO]


def record_key(shard: int) -> str:
    """Return the key of a shard's record."""
    return f"{RECORDS}/{shard:05d}.json"


def recorded_shards(names: Iterable[str]) -> list[int]:
    """Return the shards that have a record, ascending, from the names of the files there."""
    stems = (name.removesuffix(".json") for name in names if name.endswith(".json"))
    return sorted(int(stem) for stem in stems if stem.isdecimal())


_RECORD_FILE = re.compile(
    rb'\{"crc32c": (?P<crc32c>[0-9]+), "record": (?P<record>\{.*\})\}\n', re.DOTALL
)


def dump_record(record: Record) -> bytes:
    """Return the file of a record: the record and the checksum of its canonical JSON."""
    # not asdict: its deep copies took 2.3 of the 3.0 s in which 479 records were read
    values = {
        each.name: getattr(record, each.name)
        for each in fields(record)
        if each.name != "notes" or record.notes
    }
    content = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
    return b'{"crc32c": %d, "record": %s}\n' % (google_crc32c.value(content), content)


def parse_record(raw: bytes, header: Header, shard: int, where: str) -> Record:
    """Read a record's file.

    Raises:
        ShardDamaged: the file is damaged, or belongs to another shard.
    """
    found = _RECORD_FILE.fullmatch(raw)
    if found is None:
        raise _damaged(where, shard, "it is cut off, or not a record")
    if google_crc32c.value(found["record"]) != int(found["crc32c"]):
        raise _damaged(where, shard, "its checksum differs")
    try:
        record = Record(**json.loads(found["record"]))
    except (ValueError, TypeError) as error:
        raise _damaged(where, shard, str(error)) from error
    if record.shard != shard or len(record.status) != len(header.rows(shard)):
        raise _damaged(where, shard, f"it is the record of shard {record.shard}")
    return record


def _damaged(where: str, shard: int, what: str) -> ShardDamaged:
    return ShardDamaged(
        f"{where}/{record_key(shard)}: the record of shard {shard} is damaged: {what}; run "
        "`avcil cache verify --repair`, then `avcil extract` again"
    )
