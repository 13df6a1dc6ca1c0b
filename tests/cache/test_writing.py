"""Writing: what survives a kill, and who may write."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from avcil.cache.errors import CacheBusy, SchemaMismatch
from avcil.cache.reader import FeatureStore
from avcil.cache.samples import (
    ENCODING,
    sample_manifest,
    sample_tokens,
    write_sample,
)
from avcil.cache.verify import verify
from avcil.cache.writer import CacheWriter


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("original") / "c")


@pytest.fixture
def cache(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "c"))


def token_files(cache: Path) -> dict[str, bytes]:
    """Return everything except the header, which has the date, and the lock."""
    return {
        str(path.relative_to(cache)): path.read_bytes()
        for path in cache.rglob("*")
        if path.is_file() and path.name != "lock" and path != cache / "zarr.json"
    }


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


def test_written_shards_are_kept_and_not_pending(tmp_path: Path) -> None:
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


def test_a_creation_that_was_cut_short_is_done_again(original: Path, tmp_path: Path) -> None:
    for kept in (1, 3, 6):
        path = tmp_path / str(kept)
        with CacheWriter.open(path, sample_manifest(), ENCODING):
            pass
        (path / "zarr.json").write_text(
            '{"zarr_format": 3, "node_type": "group", "attributes": {}}'
        )
        for metadata in sorted(path.glob("*/zarr.json"))[kept:]:
            metadata.unlink()
        assert token_files(write_sample(path)) == token_files(original)


def test_a_writer_killed_before_it_had_the_lock_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "c" / "status").mkdir(parents=True)
    write_sample(tmp_path / "c")
    assert not verify(tmp_path / "c").damages


def test_a_status_folder_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "c" / "status").mkdir(parents=True)
    (tmp_path / "c" / "status" / "thesis.tex").write_text("...")
    with pytest.raises(SchemaMismatch, match="contains other files"):
        write_sample(tmp_path / "c")


CHILD = """
import sys
from avcil.cache.samples import sample_item, sample_manifest, ENCODING
from avcil.cache.writer import CacheWriter
print("ready", flush=True)
with CacheWriter.open(sys.argv[1], sample_manifest(), ENCODING, shard_clips=2) as writer:
    for shard in writer.pending():
        writer.commit(shard, [sample_item(row) for row in writer.rows(shard)])
"""


def killed_after(path: Path, seconds: float) -> bool:
    """Write in another process and kill -9 it; False where it was through before."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        child.stdout.readline()  # imports take longer than the writing
        try:
            child.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
        return child.wait() == -signal.SIGKILL


def kill_again_and_again(tmp_path: Path, kills: int, seed: int) -> None:
    """Kill writers at random moments and check after each; begin anew when one gets through."""
    chance, path, done, rounds = random.Random(seed), tmp_path / "0", 0, 0
    while done < kills:
        before = committed(path)
        alive = killed_after(path, chance.uniform(0, 0.3))
        done += alive
        after = committed(path)
        assert before.items() <= after.items(), "a committed clip is lost or was written again"
        if after:
            assert not verify(path).damages
        if not alive:
            rounds += 1
            path = tmp_path / str(rounds)
    while killed_after(path, 60):
        pass
    assert not list(path.rglob("*.partial"))
    assert_finished(path)


def committed(path: Path) -> dict[int, bytes]:
    """Return the bytes of every committed clip, by row."""
    if (
        not (path / "status" / "records").is_dir()
        or b"avcil" not in (path / "zarr.json").read_bytes()
    ):
        return {}
    store = FeatureStore.open(path, complete=False)
    return {
        row: clips.visual.tobytes() + clips.audio.tobytes()
        for row in store.rows().tolist()
        for clips in [store.load([row])]
    }


def assert_finished(path: Path) -> None:
    store = FeatureStore.open(path)
    rows = store.rows()
    clips = store.load(rows)
    for i, row in enumerate(rows.tolist()):
        tokens = sample_tokens(row)
        np.testing.assert_array_equal(
            clips.visual[i, : len(tokens.visual)], tokens.visual.astype(np.float16)
        )
    assert len(rows) == 39


def test_a_writer_killed_at_any_moment_loses_no_committed_clip(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, kills=3, seed=0)


@pytest.mark.slow
def test_thirty_kills_lose_no_committed_clip(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, kills=30, seed=1)


def test_what_a_killed_writer_left_is_swept_by_the_next(cache: Path) -> None:
    left = cache / "visual/c/1/0/0.0123456789abcdef.partial"
    left.write_bytes(b"half a shard")
    (cache / "status/records/00001.json").unlink()
    write_sample(cache)
    assert not left.exists()
    assert not verify(cache).damages


# --- one writer


def test_a_second_writer_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    first = CacheWriter.open(tmp_path / "c", sample_manifest(), ENCODING)
    with pytest.raises(CacheBusy, match=f"process {os.getpid()} on {socket.gethostname()}"):
        CacheWriter.open(tmp_path / "c", sample_manifest(), ENCODING)
    first.close()
    with CacheWriter.open(tmp_path / "c", sample_manifest(), ENCODING) as writer:
        assert writer.shards == 5


def test_a_lock_of_a_dead_process_is_not_in_the_way(tmp_path: Path) -> None:
    code = CHILD.replace("for shard in", "import os; os.kill(os.getpid(), 9)\n    for shard in")
    child = subprocess.run([sys.executable, "-c", code, str(tmp_path / "c")], check=False)
    assert child.returncode == -signal.SIGKILL
    assert b"pid" in (tmp_path / "c/status/lock").read_bytes()
    write_sample(tmp_path / "c")
    assert not verify(tmp_path / "c").damages


def test_a_forked_child_does_not_hold_the_lock_of_its_dead_parent(tmp_path: Path) -> None:
    code = CHILD.replace(
        "for shard in",
        "import os, time\n    if os.fork() == 0: os.kill(os.getppid(), 9)\n    time.sleep(30)\n"
        "    for shard in",
    )
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "c")],
        check=False,
        stdout=subprocess.DEVNULL,
    )
    assert child.returncode == -signal.SIGKILL
    write_sample(tmp_path / "c")
