"""Writing: new caches, resuming, and one writer at a time."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from avcil.cache.errors import CacheBusy, SchemaMismatch
from avcil.cache.reader import FeatureStore
from avcil.cache.samples import ENCODING, sample_manifest, sample_tokens, write_sample
from avcil.cache.verify import verify
from avcil.cache.writer import CacheWriter

Read = Callable[[Path], dict[str, bytes]]


# --- resuming


def test_a_new_cache_has_every_shard_pending(tmp_path: Path) -> None:
    with CacheWriter.open(tmp_path / "new" / "c", sample_manifest(), ENCODING) as writer:
        assert (writer.shards, writer.shard_clips) == (5, 8)
        assert writer.pending() == [0, 1, 2, 3, 4]
        assert writer.todo(1) == list(writer.rows(1)) == list(range(8, 16))
        assert writer.failures == {}


@pytest.mark.parametrize(
    ("clips", "shard_clips", "shards"),
    [(1, 8, 1), (8, 8, 1), (9, 8, 2), (400, 25, 16), (4079, 128, 32), (61195, 128, 479)],
)
def test_a_small_cache_has_several_shards_and_a_large_one_large_shards(
    tmp_path: Path, clips: int, shard_clips: int, shards: int
) -> None:
    with CacheWriter.open(tmp_path / "c", sample_manifest(clips), ENCODING) as writer:
        assert (writer.shard_clips, writer.shards) == (shard_clips, shards)


def test_written_shards_are_kept_and_not_pending(tmp_path: Path, token_files: Read) -> None:
    path = write_sample(tmp_path / "c", shards=[0, 3])
    before = token_files(path)
    with CacheWriter.open(path, sample_manifest(), ENCODING) as writer:
        assert writer.pending() == [1, 2, 4]
        assert list(writer.failures.values()) == ["no audio stream"]
    assert token_files(path) == before


def test_the_last_shard_may_be_short(tmp_path: Path) -> None:
    with CacheWriter.open(tmp_path / "c", sample_manifest(10), ENCODING) as writer:
        assert writer.rows(1) == range(8, 10)
        for shard in writer.pending():
            writer.commit(shard, [sample_tokens(row) for row in writer.rows(shard)])
    assert FeatureStore.open(tmp_path / "c").load([9]).visual_lengths.tolist() == [4]
    assert not verify(tmp_path / "c").damages


def test_a_wrong_number_of_tokens_is_refused(tmp_path: Path) -> None:
    with CacheWriter.open(tmp_path / "c", sample_manifest(), ENCODING) as writer:
        with pytest.raises(ValueError, match="takes tokens of 8 clips"):
            writer.commit(0, [sample_tokens(0)])
        assert writer.pending() == [0, 1, 2, 3, 4]


def test_a_creation_that_was_killed_is_repeated(
    sample: Path, tmp_path: Path, token_files: Read
) -> None:
    for kept in (1, 3, 6):
        path = tmp_path / str(kept)
        with CacheWriter.open(path, sample_manifest(), ENCODING):
            pass
        (path / "zarr.json").write_text(
            '{"zarr_format": 3, "node_type": "group", "attributes": {}}'
        )
        for metadata in sorted(path.glob("*/zarr.json"))[kept:]:
            metadata.unlink()
        assert token_files(write_sample(path)) == token_files(sample)


def test_a_writer_killed_before_it_took_the_lock_blocks_nobody(tmp_path: Path) -> None:
    (tmp_path / "c" / "status").mkdir(parents=True)
    write_sample(tmp_path / "c")
    assert not verify(tmp_path / "c").damages


def test_a_status_folder_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "c" / "status").mkdir(parents=True)
    (tmp_path / "c" / "status" / "thesis.tex").write_text("...")
    with pytest.raises(SchemaMismatch, match="contains other files"):
        write_sample(tmp_path / "c")


# --- one writer


def test_a_second_writer_is_refused_and_the_first_is_named(tmp_path: Path) -> None:
    first = CacheWriter.open(tmp_path / "c", sample_manifest(), ENCODING)
    with pytest.raises(CacheBusy, match=f"process {os.getpid()} on {socket.gethostname()}"):
        CacheWriter.open(tmp_path / "c", sample_manifest(), ENCODING)
    first.close()
    with CacheWriter.open(tmp_path / "c", sample_manifest(), ENCODING) as writer:
        assert writer.shards == 5
