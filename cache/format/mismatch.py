"""Refuse to write into a cache that was made for something else, and name the differences."""

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
    """Refuse another encoder, or a layout that was requested and differs.

    Raises:
        FingerprintMismatch, SchemaMismatch: naming both the cache's and the requested values.
    """
    if found.encoding != wanted.encoding:
        raise FingerprintMismatch(
            f"{where} was made with another encoder or other settings: "
            f"{_differences(found.encoding, wanted.encoding)}; use those of the cache, or write to "
            "another path with --cache"
        )
    if shard_clips not in (None, found.shard_clips):
        raise SchemaMismatch(
            f"{where} has shards of {found.shard_clips} clips, not {shard_clips}: leave "
            "shard_clips out to continue with it, or write to another path"
        )
    if storage not in (None, found.storage):
        raise SchemaMismatch(
            f"{where} stores {_differences(found.storage, wanted.storage)}: use the cache's "
            "setting, or write to another path"
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
        f"data set {found.dataset!r} in the cache, {wanted.dataset!r} now"
        if found.dataset != wanted.dataset
        else "",
        _count(gone, "only in the cache", wanted),
        _count(added, "only in the list", found),
        "the classes or their order differ" if found.classes != wanted.classes else "",
    ]
    grown = set(wanted.classes) > set(found.classes) and not gone
    raise ManifestMismatch(
        f"{where} was made for another list of clips: {'; '.join(filter(None, parts))}; extract "
        "the new list to another path with --cache, or remove this cache to start over"
        + (
            "; to learn new classes as well, extract their clips alone, from a folder or table of "
            "their own, to another path, and give both to avcil train: --cache OLD --cache NEW"
            if grown
            else ""
        )
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
    return f"{len(ordered)} {where}: {named}{more}"
