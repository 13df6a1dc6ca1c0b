"""What a shard holds: one small JSON file, written after the shard and before anything counts.

A record has the state, the lengths and the checksums of every clip, and the reasons of failures.
The checksums are those of the clips' bytes before compression: a shard that is intact but is not
the one that was committed (a copy of another, an older version) is found out as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from enum import IntEnum

import google_crc32c

from avcil.cache.layout import RECORDS, Header
from avcil.cache.numbers import Modality
from avcil.cache.schema import ShardDamaged


class Status(IntEnum):
    """State of a clip, in the array `status`."""

    WAITING = 0  # not extracted: what Zarr gives where nothing was written
    STORED = 1
    FAILED = 2  # no tokens, for a reason in the record
    REDO = 3  # its bytes were found damaged: extract it again


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What one shard holds, clip by clip."""

    shard: int
    status: list[int]
    lengths: dict[Modality, list[int]]  # tokens of each clip
    crc32c: dict[str, list[int]]  # by array: checksum of each clip's bytes before compression
    failures: dict[str, str]  # id -> reason
    error: dict[Modality, list[list[float]]]
    """By modality and clip: sum of squared rounding errors and sum of squared values."""
    notes: dict[str, str] = field(default_factory=dict)
    """By id, what one must know about tokens; left out of the file where there are none."""

    def redo(self) -> list[int]:
        """Return the positions in the shard whose clips wait to be extracted again."""
        return [i for i, status in enumerate(self.status) if status == Status.REDO]


def record_key(shard: int) -> str:
    """Return where a shard's record lies."""
    return f"{RECORDS}/{shard:05d}.json"


def recorded_shards(names: Iterable[str]) -> list[int]:
    """Return the shards that have a record, ascending, from the names of the files there."""
    stems = (name.removesuffix(".json") for name in names if name.endswith(".json"))
    return sorted(int(stem) for stem in stems if stem.isdecimal())


def dump_record(record: Record) -> bytes:
    """Return the record's file: the record and the checksum of its canonical JSON."""
    # not asdict: its deep copies took 2.3 of the 3.0 s in which 479 records were read
    content = _canonical(
        {
            each.name: getattr(record, each.name)
            for each in fields(record)
            if each.name != "notes" or record.notes
        }
    )
    return b'{"crc32c": %d, "record": %s}\n' % (google_crc32c.value(content), content)


def parse_record(raw: bytes, header: Header, shard: int, where: str) -> Record:
    """Read a record's file.

    Raises:
        ShardDamaged: the file is damaged, or not that of this shard.
    """
    try:
        record = Record(**json.loads(raw)["record"])
        intact = dump_record(record) == raw
    except (ValueError, LookupError, TypeError) as error:
        raise _damaged(where, shard, str(error)) from error
    if not intact:
        raise _damaged(where, shard, "its checksum differs")
    if record.shard != shard or len(record.status) != len(header.rows(shard)):
        raise _damaged(where, shard, f"it is the record of shard {record.shard}")
    return record


def _canonical(content: object) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _damaged(where: str, shard: int, what: str) -> ShardDamaged:
    return ShardDamaged(
        f"{where}/{record_key(shard)}: the record of shard {shard} is damaged: {what}; run "
        "`avcil cache verify --repair`, then `avcil extract` again"
    )
