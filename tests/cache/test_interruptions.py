"""A kill or a full disk loses no committed clip, and the next writer continues."""

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from avcil.cache.errors import CacheUnwritable
from avcil.cache.reader import FeatureStore
from avcil.cache.samples import ENCODING, sample_item, sample_manifest, sample_tokens, write_sample
from avcil.cache.verify import verify
from avcil.cache.writer import CacheWriter

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
    """Write in another process and kill it; return False if it finished before."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        child.stdout.readline()  # imports take longer than the writing
        try:
            child.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
        return child.wait() == -signal.SIGKILL


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


@pytest.mark.parametrize(("kills", "seed"), [(3, 0), pytest.param(30, 1, marks=pytest.mark.slow)])
def test_a_writer_killed_at_any_moment_loses_no_committed_clip(
    tmp_path: Path, kills: int, seed: int
) -> None:
    """Kill writers at random moments and check after each; take a new path when one finishes."""
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
    store = FeatureStore.open(path)
    rows = store.rows()
    clips = store.load(rows)
    for i, row in enumerate(rows.tolist()):
        tokens = sample_tokens(row)
        np.testing.assert_array_equal(
            clips.visual[i, : len(tokens.visual)], tokens.visual.astype(np.float16)
        )
    assert len(rows) == 39


def test_the_next_writer_removes_what_a_killed_writer_left(cache: Path) -> None:
    left = cache / "visual/c/1/0/0.0123456789abcdef.partial"
    left.write_bytes(b"half a shard")
    (cache / "status/records/00001.json").unlink()
    write_sample(cache)
    assert not left.exists()
    assert not verify(cache).damages


@pytest.mark.parametrize(
    "last_act",
    [
        "os.kill(os.getpid(), 9)",
        "if os.fork() == 0: os.kill(os.getppid(), 9)\n    time.sleep(30)",  # the child outlives it
    ],
)
def test_the_lock_of_a_dead_process_blocks_nobody(tmp_path: Path, last_act: str) -> None:
    code = CHILD.replace("for shard in", f"import os, time\n    {last_act}\n    for shard in")
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "c")]
    child = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    assert child.returncode == -signal.SIGKILL
    assert b"pid" in (tmp_path / "c/status/lock").read_bytes()
    write_sample(tmp_path / "c")
    assert not verify(tmp_path / "c").damages


# --- the disk


def test_a_full_disk_is_one_line_and_written_shards_stay(
    tmp_path: Path, token_files: Callable[[Path], dict[str, bytes]]
) -> None:
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
