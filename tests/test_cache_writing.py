"""Writing: what survives a kill, who may write, and what is refused with both sides named."""

import errno
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from avcil.cache.reader import FeatureStore
from avcil.cache.samples import (
    ENCODING,
    sample_item,
    sample_manifest,
    sample_tokens,
    write_sample,
)
from avcil.cache.schema import (
    CacheBusy,
    CacheUnwritable,
    FingerprintMismatch,
    Manifest,
    ManifestMismatch,
    SchemaMismatch,
    Storage,
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
        alive = killed_after(path, chance.uniform(0, 0.6))
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
        "import os, time\n    if os.fork() == 0: time.sleep(30)\n    os.kill(os.getpid(), 9)\n"
        "    for shard in",
    )
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "c")],
        check=False,
        stdout=subprocess.DEVNULL,
    )
    write_sample(tmp_path / "c")


# --- refusals


def test_another_encoder_is_refused_with_both_named(cache: Path) -> None:
    other = replace(ENCODING, fingerprint="sample-2", encoder="other")
    with pytest.raises(
        FingerprintMismatch, match=r"'sample' in the cache, 'other' now.*'sample-1'.*'sample-2'"
    ):
        CacheWriter.open(cache, sample_manifest(), other)


def test_the_same_encoder_with_another_setting_is_refused(cache: Path) -> None:
    with pytest.raises(FingerprintMismatch, match=r"audio_rate_hz 2.0 in the cache, 25.0 now"):
        CacheWriter.open(cache, sample_manifest(), replace(ENCODING, audio_rate_hz=25.0))


def test_another_list_of_clips_is_refused_with_counts_and_examples(cache: Path) -> None:
    old = sample_manifest()
    rows = list(zip(old.splits, old.labels.tolist(), old.ids, strict=True))
    more = Manifest.of(
        "sample", old.classes, [*rows[1:], ("test", 0, "new-1"), ("val", 1, "new-2")]
    )
    with pytest.raises(ManifestMismatch) as caught:
        CacheWriter.open(cache, more, ENCODING)
    text = str(caught.value)
    assert f"1 rows in the cache alone: '{old.ids[0]}' (train, Straßenmusik)" in text
    assert "2 rows in the list alone: 'new-1' (test, Straßenmusik), 'new-2' (val, dog)" in text
    assert "--cache" in text


def test_another_order_of_classes_is_refused(cache: Path) -> None:
    old = sample_manifest()
    names = tuple(reversed(old.classes))
    rows = [(s, 2 - int(n), i) for s, n, i in zip(old.splits, old.labels, old.ids, strict=True)]
    with pytest.raises(ManifestMismatch, match="the classes or their order differ"):
        CacheWriter.open(cache, Manifest.of("sample", names, rows), ENCODING)


def test_another_layout_is_refused_where_it_was_asked_for(cache: Path) -> None:
    with pytest.raises(SchemaMismatch, match="shards of 8 clips, not 16"):
        CacheWriter.open(cache, sample_manifest(), ENCODING, shard_clips=16)
    with pytest.raises(SchemaMismatch, match="numbers 'float16' in the cache, 'int8' now"):
        CacheWriter.open(cache, sample_manifest(), ENCODING, storage=Storage(numbers="int8"))


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(SchemaMismatch, match="holds other files"):
        CacheWriter.open(tmp_path, sample_manifest(), ENCODING)
    group = zarr.create_group(tmp_path / "mine.zarr")
    with pytest.raises(SchemaMismatch, match="holds other files"):
        CacheWriter.open(tmp_path / "mine.zarr", sample_manifest(), ENCODING)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex", "mine.zarr"]
    assert not list(group.keys())


@pytest.mark.parametrize(
    ("field", "value", "known"),
    [("numbers", "bf16", "float16, int8"), ("compression", "lz4", "none, zstd")],
)
def test_an_unknown_storage_lists_what_is_known(field: str, value: str, known: str) -> None:
    with pytest.raises(ValueError, match=f"unknown {field} '{value}'; choose one of {known}"):
        Storage(**{field: value})  # type: ignore[arg-type]


# --- the disk


def test_a_full_disk_is_one_line_and_written_shards_stay(tmp_path: Path) -> None:
    """The limit on file size stands for the full disk: the kernel refuses the write itself."""
    path = write_sample(tmp_path / "c", shards=[0, 1])
    before = token_files(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with CacheWriter.open(path, sample_manifest(), ENCODING) as writer:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
            with pytest.raises(CacheUnwritable, match="2 shards are written and stay: make room"):
                writer.commit(2, [sample_item(row) for row in writer.rows(2)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert {name: token_files(path)[name] for name in before} == before
        assert not list(path.rglob("*.partial"))
        assert writer.pending() == [2, 3, 4]
        writer.commit(2, [sample_item(row) for row in writer.rows(2)])
    assert not verify(path).damages


IN_A_SMALL_DISK = """
mount -t tmpfs -o size=160k none "$1" || exit 77
"$2" -c "$3" "$1/c"; first=$?
mount -o remount,size=8m "$1" && "$2" -c "$3" "$1/c" && find "$1" -name '*.partial'
second=$?
mount -o remount,ro "$1" && rm -f x; "$2" -c "$3" "$1/c"
exit $((first * 10 + second))
"""
REPORTING = (
    "import sys\nfrom avcil.errors import AvcilError\ndef main():\n"
    + "".join(f"    {line}\n" for line in CHILD.strip().splitlines())
    + "try: main()\nexcept AvcilError as error: sys.exit(f'line: {error}')\n"
)


def test_a_small_disk_and_a_read_only_one(tmp_path: Path) -> None:
    """On a real tmpfs, where this machine lets us mount one in a namespace of our own."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    command = ["unshare", "-r", "-m", "sh", "-c", IN_A_SMALL_DISK, "sh"]
    run = subprocess.run(
        [*command, str(tmp_path), sys.executable, REPORTING],
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode in (1, 77) and "line:" not in run.stderr:
        pytest.skip(f"no mount here: {run.stderr.strip()}")
    full, read_only = [line for line in run.stderr.splitlines() if line]
    assert "No space left on device" in full
    assert "shards are written and stay: make room, then run the same command again" in full
    assert "Read-only file system" in read_only
    assert "choose a folder that you may write to" in read_only
    assert run.returncode == 10, "the second run, with room, finishes and leaves nothing behind"
    assert "partial" not in run.stdout


def test_errors_that_are_not_the_disks_keep_their_traceback(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / "status/records/00001.json").unlink()
    with CacheWriter.open(cache, sample_manifest(), ENCODING) as writer:

        def broken(_: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "fsync", broken)
        with pytest.raises(OSError, match="Input/output error") as caught:
            writer.commit(1, [sample_item(row) for row in writer.rows(1)])
        assert not isinstance(caught.value, CacheUnwritable)
        assert writer.pending() == [1]
