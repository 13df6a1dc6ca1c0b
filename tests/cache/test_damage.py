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

from avcil.cache.errors import (
    CacheError,
    CacheIncomplete,
    SchemaMismatch,
    ShardDamaged,
    ShardMissing,
)
from avcil.cache.reader import FeatureStore
from avcil.cache.repair import verify_and_repair
from avcil.cache.samples import (
    ENCODING,
    FAILED,
    sample_item,
    sample_manifest,
    sample_tokens,
    write_sample,
)
from avcil.cache.schema import Clips, Storage
from avcil.cache.verify import verify
from avcil.cache.writer import CacheWriter

STORED = [row for row in range(40) if row != FAILED]
VISUAL_CHUNK = 6 * 80 * 2 + 4


@pytest.fixture(scope="module", params=["none", pytest.param("zstd", marks=pytest.mark.slow)])
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = Storage(compression=request.param)
    return write_sample(tmp_path_factory.mktemp("original") / "c", storage=storage)


@pytest.fixture
def cache(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "c"))


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
                content = bytearray(file.read_bytes())
                content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
                changes.enter_context(changed(file, bytes(content)))
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
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    with changed(file, bytes(content)), pytest.raises(ShardDamaged, match=r"row 1[6-9]|row 2[0-3]"):
        store.load([16, 17, 18, 19, 20, 21, 22, 23])
    with changed(file, bytes(content[:50])), pytest.raises(ShardDamaged):
        store.load([16, 17])


def test_only_clips_that_are_asked_for_are_read(cache: Path) -> None:
    file = cache / "visual/c/2/0/0"
    content = bytearray(file.read_bytes())
    content[100] ^= 1  # in the shard's first clip
    with changed(file, bytes(content)):
        store = FeatureStore.open(cache)
        assert store.load([17, 23, 24]).visual_lengths.tolist() == [6, 6, 1]
        assert [damage.row for damage in verify(cache).damages] == [16]


@pytest.mark.parametrize("name", ["visual", "audio"])
@pytest.mark.parametrize("how", ["deleted", "empty", "another shard", "of another cache"])
def test_a_lost_or_exchanged_shard_is_never_read_as_zeros(
    cache: Path, original: Path, tmp_path: Path, name: str, how: str
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


def test_a_missing_record_is_work_to_be_redone(cache: Path) -> None:
    intact = FeatureStore.open(cache).load(STORED)
    (cache / "status/records/00001.json").unlink()
    with pytest.raises(CacheIncomplete, match="4 of 5 shards"):
        FeatureStore.open(cache)
    assert verify(cache).unfinished == [1]
    assert not verify(cache).damages
    write_sample(cache)
    assert same(FeatureStore.open(cache).load(STORED), intact)


def test_a_flipped_or_cut_record_is_caught(cache: Path) -> None:
    file = cache / "status/records/00002.json"
    content = file.read_bytes()
    chance = random.Random(2)
    spoilt = [content[: chance.randrange(len(content) - 2)] for _ in range(20)]
    for _ in range(50):
        flipped = bytearray(content)
        flipped[chance.randrange(len(content) - 1)] ^= 1 << chance.randrange(7)
        spoilt.append(bytes(flipped))
    for each in spoilt:
        with changed(file, each):
            assert [damage.shard for damage in verify(cache).damages] == [2]
            with pytest.raises(ShardDamaged, match="record of shard 2"):
                FeatureStore.open(cache)


@pytest.mark.parametrize("name", ["id", "split", "label"])
def test_a_changed_list_of_clips_is_caught(cache: Path, name: str) -> None:
    file = next(p for p in (cache / name / "c").rglob("*") if p.is_file())
    for place in range(0, file.stat().st_size, 7):
        content = bytearray(file.read_bytes())
        content[place] ^= 1
        with changed(file, bytes(content)), pytest.raises(ShardDamaged, match="list of clips"):
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


@pytest.mark.parametrize("name", ["visual_length", "audio_length", "status"])
def test_a_small_array_is_checked_and_repaired_from_the_record(cache: Path, name: str) -> None:
    file = cache / name / "c/0"
    intact = file.read_bytes()
    for content in (b"", intact[:-1], bytes([intact[0] ^ 1]) + intact[1:]):
        file.write_bytes(content)
        assert [(d.shard, d.array) for d in verify_and_repair(cache).damages] == [(0, name)]
        assert file.read_bytes() == intact
    FeatureStore.open(cache)


@pytest.mark.parametrize("name", ["visual_length", "audio_length", "status"])
@pytest.mark.parametrize("content", [None, "", "{}", '{"zarr_format": 3}'])
def test_lost_metadata_of_a_small_array_is_found_and_repaired(
    cache: Path, original: Path, name: str, content: str | None
) -> None:
    (cache / name / "zarr.json").unlink()
    if content is not None:
        (cache / name / "zarr.json").write_text(content)
    (damage,) = verify(cache).damages
    assert damage.what == f"{name}/zarr.json is gone or damaged"
    verify_and_repair(cache)
    assert not verify(cache).damages
    for file in ("zarr.json", "c/0", "c/4"):
        assert (cache / name / file).read_bytes() == (original / name / file).read_bytes()


@pytest.mark.parametrize("name", ["visual", "audio", "id", "split", "label"])
def test_lost_metadata_of_tokens_and_clips_is_written_again(
    cache: Path, original: Path, name: str
) -> None:
    for content in (None, "", "{}", "<html>"):
        (cache / name / "zarr.json").unlink()
        if content is not None:
            (cache / name / "zarr.json").write_text(content)
        with pytest.raises(CacheError, match="verify --repair"):
            verify(cache)
        (damage,) = verify_and_repair(cache).damages
        assert damage.what == f"{name}/zarr.json is gone or damaged"
        assert not verify(cache).damages
        restored = (cache / name / "zarr.json").read_bytes()
        assert restored == (original / name / "zarr.json").read_bytes()


def test_lost_metadata_stops_a_writer_with_the_file_and_a_remedy(cache: Path) -> None:
    (cache / "status/zarr.json").unlink()
    (cache / "status/records/00001.json").unlink()
    with pytest.raises(SchemaMismatch, match=r"status/zarr.json is gone.*verify --repair"):
        write_sample(cache)
    verify_and_repair(cache)
    write_sample(cache)
    assert not verify(cache).damages


@pytest.mark.parametrize("content", ["", "[]", "<html>", '{"attributes": 3}'])
def test_a_damaged_header_is_named_with_its_path_and_a_remedy(cache: Path, content: str) -> None:
    (cache / "zarr.json").write_text(content)
    for use in (FeatureStore.open, verify, write_sample):
        with pytest.raises(SchemaMismatch, match=r"not the header.*restore it from a copy") as told:
            use(cache)
        assert str(cache / "zarr.json") in str(told.value)


def test_a_record_of_a_shard_that_cannot_be_is_removed_by_repair(cache: Path) -> None:
    record = cache / "status/records/00099.json"
    shutil.copy(record.with_name("00001.json"), record)
    with pytest.raises(SchemaMismatch, match=r"shard 99, but only 5 shards: .*verify --repair"):
        FeatureStore.open(cache)
    assert [damage.shard for damage in verify_and_repair(cache).damages] == [99]
    FeatureStore.open(cache)


def test_a_failed_clip_to_be_redone_has_no_failure_any_more(cache: Path) -> None:
    file = cache / "audio/c/0/0/0"
    content = bytearray(file.read_bytes())
    content[-4 - 16 * 8 - 10] ^= 1  # in the chunk of the last clip, before the index
    file.write_bytes(bytes(content))
    assert [damage.row for damage in verify_and_repair(cache).damages] == [FAILED]
    store = FeatureStore.open(cache, complete=False)
    assert store.failures == {}


def test_repair_leaves_the_damaged_clips_alone_to_be_redone(cache: Path) -> None:
    intact = FeatureStore.open(cache).load(STORED)
    file = cache / "audio/c/1/0/0"
    content = bytearray(file.read_bytes())
    content[5] ^= 1
    file.write_bytes(bytes(content))
    (cache / "visual/c/4/0/0").unlink()
    found = {damage.row for damage in verify_and_repair(cache).damages}
    assert found == {8, *range(32, 40)}
    with pytest.raises(CacheIncomplete, match="3 of 5 shards"):
        FeatureStore.open(cache)
    with CacheWriter.open(cache, sample_manifest(), ENCODING) as writer:
        assert writer.pending() == [1, 4]
        assert writer.todo(1) == [8]
        assert writer.todo(4) == list(range(32, 40))
        for shard in writer.pending():
            writer.commit(shard, [sample_item(row) for row in writer.todo(shard)])
        assert writer.pending() == []
    assert not verify(cache).damages
    assert same(FeatureStore.open(cache).load(STORED), intact)


def test_redoing_a_clip_keeps_the_failures_of_its_shard(cache: Path, original: Path) -> None:
    file = cache / "visual/c/0/0/0"
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(bytes(content))
    verify_and_repair(cache)
    with CacheWriter.open(cache, sample_manifest(), ENCODING) as writer:
        writer.commit(0, [sample_tokens(0)])
        assert writer.failures == {sample_manifest().ids[FAILED]: "no audio stream"}
    assert not verify(cache).damages
    for name in ("visual/c/0/0/0", "status/c/0", "status/records/00000.json"):
        assert (cache / name).read_bytes() == (original / name).read_bytes()


def test_repair_changes_nothing_in_an_intact_cache(cache: Path) -> None:
    files = {p: p.read_bytes() for p in cache.rglob("*") if p.is_file()}
    assert not verify_and_repair(cache).damages
    assert {p: p.read_bytes() for p in cache.rglob("*") if p.is_file()} == files


def test_a_norm_that_the_encoder_does_not_promise_is_damage(tmp_path: Path) -> None:
    with CacheWriter.open(tmp_path / "c", sample_manifest(3), ENCODING) as writer:
        good = sample_tokens(1)
        wrong = type(good)(visual=good.visual, audio=good.audio * np.float32(1.1))
        writer.commit(0, [good, wrong, good])
    (damage,) = verify(tmp_path / "c").damages
    assert (damage.row, damage.array) == (1, "audio")
    assert "norm 1.100, the encoder guarantees 1" in damage.what


def test_verify_of_an_unusable_cache_says_so(cache: Path) -> None:
    (cache / "visual/zarr.json").write_text("{}")
    with pytest.raises(CacheError, match="is gone or damaged"):
        verify(cache)
