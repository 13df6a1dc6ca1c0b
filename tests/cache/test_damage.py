"""Damage on disk is an error or work to be redone, never a wrong number.

Each test damages a copy of one small cache of 40 clips in 5 shards; row 7 has no tokens.
"""

import random
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from avcil.cache.errors import SchemaMismatch, ShardDamaged, ShardMissing
from avcil.cache.reader import FeatureStore
from avcil.cache.samples import ENCODING, FAILED, sample_manifest, sample_tokens, write_sample
from avcil.cache.schema import Clips
from avcil.cache.verify import verify
from avcil.cache.writer import CacheWriter

STORED = [row for row in range(40) if row != FAILED]


@pytest.fixture
def cache(either: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(either, tmp_path / "c"))


@contextmanager
def changed(file: Path, content: bytes) -> Iterator[None]:
    """Change a file in place, so that a store that has it open sees the change, and back again."""
    intact = file.read_bytes()
    for now in (content, intact):
        with file.open("r+b") as handle:
            handle.write(now)
            handle.truncate()
        if now is content:
            yield


def flipped(file: Path, place: int, bit: int = 0) -> bytes:
    """Return the content of a file with one bit flipped."""
    content = bytearray(file.read_bytes())
    content[place] ^= 1 << bit
    return bytes(content)


def same(one: Clips, two: Clips) -> bool:
    return bool((one.visual == two.visual).all() and (one.audio == two.audio).all())


def assert_caught(store: FeatureStore, cache: Path, intact: list[Clips]) -> None:
    """Each shard is damaged: load raises, or the damage lies in the failed clip; verify finds it.

    Args:
        store: the cache, not read yet.
        cache: its folder.
        intact: the clips of each shard, as they were.
    """
    damages = verify(cache).damages
    for shard, expected in enumerate(intact):
        damaged = {damage.row for damage in damages if damage.shard == shard}
        assert damaged
        if damaged == {FAILED}:
            assert same(store.load(stored(shard)), expected)
        else:
            with pytest.raises((ShardDamaged, ShardMissing), match=r"clip-.*cache verify --repair"):
                store.load(stored(shard))


def stored(shard: int) -> list[int]:
    """Return the rows of a shard that have tokens."""
    return [row for row in STORED if row // 8 == shard]


def by_shard(store: FeatureStore) -> list[Clips]:
    return [store.load(stored(shard)) for shard in range(5)]


def files_of_shards(cache: Path) -> list[list[Path]]:
    """Return the two files of each shard's tokens."""
    names = ("visual", "audio")
    files = [[cache / name / f"c/{shard}/0/0" for name in names] for shard in range(5)]
    assert len([*cache.glob("visual/c/*/0/0"), *cache.glob("audio/c/*/0/0")]) == 10
    return files


def test_a_flipped_byte_anywhere_in_a_shard_is_caught(cache: Path) -> None:
    """200 flips, one in each of the five shards at a time."""
    store = FeatureStore.open(cache)
    whole, intact = store.load(STORED), by_shard(store)
    chance = random.Random(0)
    for _ in range(40):
        with ExitStack() as changes:
            for files in files_of_shards(cache):
                file = chance.choice(files)
                place = chance.randrange(file.stat().st_size)
                changes.enter_context(changed(file, flipped(file, place, chance.randrange(8))))
            assert_caught(FeatureStore.open(cache), cache, intact)
    assert same(store.load(STORED), whole)
    assert not verify(cache).damages


def test_a_shard_cut_anywhere_is_caught(cache: Path) -> None:
    """50 cuts, one in each of the five shards at a time."""
    intact = by_shard(FeatureStore.open(cache))
    chance = random.Random(1)
    for _ in range(10):
        with ExitStack() as changes:
            for files in files_of_shards(cache):
                file = chance.choice(files)
                content = file.read_bytes()
                changes.enter_context(changed(file, content[: chance.randrange(len(content))]))
            assert_caught(FeatureStore.open(cache), cache, intact)


def test_damage_is_caught_in_a_store_that_is_open_already(cache: Path) -> None:
    store = FeatureStore.open(cache)
    store.load(STORED)
    file = cache / "visual/c/2/0/0"
    content = flipped(file, 100)
    with changed(file, content), pytest.raises(ShardDamaged, match=r"row 1[6-9]|row 2[0-3]"):
        store.load([16, 17, 18, 19, 20, 21, 22, 23])
    with changed(file, content[:50]), pytest.raises(ShardDamaged):
        store.load([16, 17])


def test_only_clips_that_are_asked_for_are_read(cache: Path) -> None:
    file = cache / "visual/c/2/0/0"
    with changed(file, flipped(file, 100)):  # in the shard's first clip
        store = FeatureStore.open(cache)
        assert store.load([17, 23, 24]).visual_lengths.tolist() == [6, 6, 1]
        assert [damage.row for damage in verify(cache).damages] == [16]


@pytest.mark.parametrize("name", ["visual", "audio"])
@pytest.mark.parametrize("how", ["deleted", "empty", "another shard", "of another cache"])
def test_a_lost_or_exchanged_shard_is_never_read_as_zeros(
    cache: Path, tmp_path: Path, name: str, how: str
) -> None:
    file = cache / name / "c/3/0/0"
    if how == "deleted":
        file.unlink()
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "another shard":
        shutil.copy(cache / name / "c/2/0/0", file)
    else:
        _other(tmp_path / "other", cache)
        shutil.copy(tmp_path / "other" / name / "c/3/0/0", file)
    store = FeatureStore.open(cache)
    assert store.load([0, 23, 32]).labels.shape == (3,)
    with pytest.raises((ShardMissing, ShardDamaged), match="shard 3"):
        store.load([24])
    assert [damage.row for damage in verify(cache).damages] == list(range(24, 32))


def _other(path: Path, cache: Path) -> None:
    """Write an intact cache with other tokens."""
    storage = FeatureStore.open(cache).header.storage
    with CacheWriter.open(path, sample_manifest(), ENCODING, storage=storage) as writer:
        for shard in writer.pending():
            writer.commit(shard, [sample_tokens(row + 30) for row in writer.rows(shard)])


def test_a_flipped_or_cut_record_is_caught(cache: Path) -> None:
    file = cache / "status/records/00002.json"
    content = file.read_bytes()
    chance = random.Random(2)
    spoilt = [content[: chance.randrange(len(content) - 2)] for _ in range(20)]
    spoilt += [
        flipped(file, chance.randrange(len(content) - 1), chance.randrange(7)) for _ in range(50)
    ]
    for each in spoilt:
        with changed(file, each):
            assert [damage.shard for damage in verify(cache).damages] == [2]
            with pytest.raises(ShardDamaged, match="record of shard 2"):
                FeatureStore.open(cache)


@pytest.mark.parametrize("name", ["id", "split", "label"])
def test_a_changed_list_of_clips_is_caught(cache: Path, name: str) -> None:
    file = next(p for p in (cache / name / "c").rglob("*") if p.is_file())
    for place in range(0, file.stat().st_size, 7):
        content = flipped(file, place)
        with changed(file, content), pytest.raises(ShardDamaged, match="list of clips"):
            FeatureStore.open(cache)


def test_a_header_that_was_edited_is_caught(cache: Path) -> None:
    header = (cache / "zarr.json").read_text()
    for old, new in (
        ('"shard_clips": 8', '"shard_clips": 16'),
        ('"clips": 40', '"clips": 41'),
        ('"violin"', '"cello"'),
        ('"visual_width": 80', '"visual_width": 81'),
        ('"numbers": "float16"', '"numbers": "float8"'),
    ):
        assert old in header
        with (
            changed(cache / "zarr.json", header.replace(old, new).encode()),
            pytest.raises((SchemaMismatch, ShardDamaged)),
        ):
            FeatureStore.open(cache)


@pytest.mark.parametrize("content", ["", "[]", "<html>", '{"attributes": 3}'])
def test_a_damaged_header_is_named_with_its_path_and_a_remedy(cache: Path, content: str) -> None:
    (cache / "zarr.json").write_text(content)
    for use in (FeatureStore.open, verify, write_sample):
        with pytest.raises(SchemaMismatch, match=r"not the header.*restore it from a copy") as told:
            use(cache)
        assert str(cache / "zarr.json") in str(told.value)


def test_a_norm_that_the_encoder_does_not_guarantee_is_damage(tmp_path: Path) -> None:
    with CacheWriter.open(tmp_path / "c", sample_manifest(3), ENCODING) as writer:
        good = sample_tokens(1)
        wrong = type(good)(visual=good.visual, audio=good.audio * np.float32(1.1))
        writer.commit(0, [good, wrong, good])
    (damage,) = verify(tmp_path / "c").damages
    assert (damage.row, damage.array) == (1, "audio")
    assert "norm 1.100, the encoder guarantees 1" in damage.what
