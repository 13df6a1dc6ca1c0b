"""Repair: damaged clips are marked and extracted again, lost metadata is restored."""

import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from avcil.cache.errors import CacheError, CacheIncomplete, SchemaMismatch
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
from avcil.cache.schema import Clips
from avcil.cache.verify import verify
from avcil.cache.writer import CacheWriter

STORED = [row for row in range(40) if row != FAILED]


@pytest.fixture
def cache(either: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(either, tmp_path / "c"))


def flip(file: Path, place: int) -> None:
    """Flip one bit of a file."""
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(bytes(content))


def assert_same(one: Clips, two: Clips) -> None:
    for field in fields(Clips):
        assert np.array_equal(getattr(one, field.name), getattr(two, field.name)), field.name


def test_a_shard_without_a_record_is_extracted_again(cache: Path) -> None:
    intact = FeatureStore.open(cache).load(STORED)
    (cache / "status/records/00001.json").unlink()
    with pytest.raises(CacheIncomplete, match="4 of 5 shards"):
        FeatureStore.open(cache)
    assert verify(cache).unfinished == [1]
    assert not verify(cache).damages
    write_sample(cache)
    assert_same(FeatureStore.open(cache).load(STORED), intact)


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
    cache: Path, either: Path, name: str, content: str | None
) -> None:
    (cache / name / "zarr.json").unlink()
    if content is not None:
        (cache / name / "zarr.json").write_text(content)
    (damage,) = verify(cache).damages
    assert damage.what == f"{name}/zarr.json is gone or damaged"
    verify_and_repair(cache)
    assert not verify(cache).damages
    for file in ("zarr.json", "c/0", "c/4"):
        assert (cache / name / file).read_bytes() == (either / name / file).read_bytes()


@pytest.mark.parametrize("name", ["visual", "audio", "id", "split", "label"])
def test_lost_metadata_of_tokens_and_clips_is_written_again(
    cache: Path, either: Path, name: str
) -> None:
    for content in (None, "", "{}", "<html>"):
        (cache / name / "zarr.json").unlink()
        if content is not None:
            (cache / name / "zarr.json").write_text(content)
        with pytest.raises(CacheError, match=r"damaged.*verify --repair"):
            verify(cache)
        (damage,) = verify_and_repair(cache).damages
        assert damage.what == f"{name}/zarr.json is gone or damaged"
        assert not verify(cache).damages
        restored = (cache / name / "zarr.json").read_bytes()
        assert restored == (either / name / "zarr.json").read_bytes()


def test_lost_metadata_stops_a_writer_with_the_file_and_a_remedy(cache: Path) -> None:
    (cache / "status/zarr.json").unlink()
    (cache / "status/records/00001.json").unlink()
    with pytest.raises(SchemaMismatch, match=r"status/zarr.json is gone.*verify --repair"):
        write_sample(cache)
    verify_and_repair(cache)
    write_sample(cache)
    assert not verify(cache).damages


def test_repair_removes_the_record_of_a_shard_that_does_not_exist(cache: Path) -> None:
    record = cache / "status/records/00099.json"
    shutil.copy(record.with_name("00001.json"), record)
    with pytest.raises(SchemaMismatch, match=r"shard 99, but only 5 shards: .*verify --repair"):
        FeatureStore.open(cache)
    assert [damage.shard for damage in verify_and_repair(cache).damages] == [99]
    FeatureStore.open(cache)


def test_a_failed_clip_marked_for_extraction_is_no_longer_a_failure(cache: Path) -> None:
    file = cache / "audio/c/0/0/0"
    flip(file, -4 - 16 * 8 - 10)  # in the chunk of the last clip, before the index
    assert [damage.row for damage in verify_and_repair(cache).damages] == [FAILED]
    store = FeatureStore.open(cache, complete=False)
    assert store.failures == {}


def test_after_repair_only_the_damaged_clips_are_redone(cache: Path) -> None:
    intact = FeatureStore.open(cache).load(STORED)
    flip(cache / "audio/c/1/0/0", 5)
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
    assert_same(FeatureStore.open(cache).load(STORED), intact)


def test_redoing_a_clip_keeps_the_failures_of_its_shard(cache: Path, either: Path) -> None:
    flip(cache / "visual/c/0/0/0", 0)
    verify_and_repair(cache)
    with CacheWriter.open(cache, sample_manifest(), ENCODING) as writer:
        writer.commit(0, [sample_tokens(0)])
        assert writer.failures == {sample_manifest().ids[FAILED]: "no audio stream"}
    assert not verify(cache).damages
    for name in ("visual/c/0/0/0", "status/c/0", "status/records/00000.json"):
        assert (cache / name).read_bytes() == (either / name).read_bytes()


def test_repair_changes_nothing_in_an_intact_cache(cache: Path) -> None:
    files = {p: p.read_bytes() for p in cache.rglob("*") if p.is_file()}
    assert not verify_and_repair(cache).damages
    assert {p: p.read_bytes() for p in cache.rglob("*") if p.is_file()} == files
