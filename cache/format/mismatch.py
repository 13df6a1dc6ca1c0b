"""Say how a cache differs from what someone wants to write into it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from avcil.cache.errors import FingerprintMismatch, ManifestMismatch, SchemaMismatch
from avcil.cache.format.layout import Header
from avcil.cache.names import code_points, printable
from avcil.cache.schema import Encoding, Manifest, Storage

EXAMPLES = 3


def check_same(
    where: str, found: Header, wanted: Header, shard_clips: int | None, storage: Storage | None
) -> None:
    """Refuse another encoder, or another layout that was asked for.

    Raises:
        FingerprintMismatch, SchemaMismatch: naming what is in the cache and what was asked for.
    """
    _check_encoding(where, found.encoding, wanted.encoding)
    if shard_clips not in (None, found.shard_clips):
        raise SchemaMismatch(
            f"{where} has shards of {found.shard_clips} clips, not {shard_clips}: leave "
            "shard_clips out to go on with it, or write to another path"
        )
    if storage not in (None, found.storage):
        raise SchemaMismatch(
            f"{where} stores {_differences(found.storage, wanted.storage)}: ask for what it has, "
            "or write to another path"
        )


def _check_encoding(where: str, found: Encoding, wanted: Encoding) -> None:
    if found == wanted:
        return
    raise FingerprintMismatch(
        f"{where} was made with another encoder or other settings: "
        f"{_differences(found, wanted)}; use those of the cache, or write to another path with "
        "--cache"
    )


def _differences(found: Encoding | Storage, wanted: Encoding | Storage) -> str:
    ours = asdict(wanted)
    return ", ".join(
        f"{name} {value!r} in the cache, {ours[name]!r} now"
        for name, value in asdict(found).items()
        if value != ours[name]
    )


def check_same_clips(where: str, found: Manifest, wanted: Manifest) -> None:
    """Refuse another list of clips.

    Raises:
        ManifestMismatch: saying how many rows differ, with examples.
    """
    theirs, ours = _rows(found), _rows(wanted)
    gone, added = theirs - ours, ours - theirs
    if not gone and not added and found.classes == wanted.classes:
        return
    parts = [
        f"dataset {found.dataset!r} there, {wanted.dataset!r} now"
        if found.dataset != wanted.dataset
        else "",
        _count(gone, "in the cache alone", wanted),
        _count(added, "in the list alone", found),
        "the classes or their order differ" if found.classes != wanted.classes else "",
    ]
    raise ManifestMismatch(
        f"{where} was made for another list of clips: {'; '.join(filter(None, parts))}; extract "
        "the new list to another path with --cache, or remove this cache to begin again"
    )


def _rows(manifest: Manifest) -> set[tuple[str, str, str]]:
    """Return (id, split, class name) of every clip."""
    names = (manifest.classes[label] for label in manifest.labels)
    return set(zip(manifest.ids, manifest.splits, names, strict=True))


def _count(rows: Iterable[tuple[str, str, str]], where: str, other: Manifest) -> str:
    ordered = sorted(rows)
    if not ordered:
        return ""
    named = ", ".join(
        f"{clip!r}{code_points(clip, other.ids)} "
        f"({split}, {printable(name)}{code_points(name, other.classes)})"
        for clip, split, name in ordered[:EXAMPLES]
    )
    more = ", ..." if len(ordered) > EXAMPLES else ""
    return f"{len(ordered)} rows {where}: {named}{more}"
