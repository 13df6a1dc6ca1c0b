"""Caches in a bucket, on a server that speaks S3: the same clips, one writer, clear errors."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
from torch.utils.data import DataLoader
from typer.testing import CliRunner

import avcil.cache
from avcil.cache.dataset import ClipDataset
from avcil.cache.errors import (
    CacheBusy,
    CacheNotFound,
    FingerprintMismatch,
    SchemaMismatch,
    StoreUnreachable,
)
from avcil.cache.reader import FeatureStore
from avcil.cache.repair import verify_and_repair
from avcil.cache.samples import (
    ENCODING,
    sample_item,
    sample_manifest,
    write_sample,
)
from avcil.cache.schema import Storage
from avcil.cache.storage import lease
from avcil.cache.storage.bucket import BucketFiles
from avcil.cache.storage.lease import Lease
from avcil.cache.storage.open import open_files
from avcil.cache.verify import verify
from avcil.cache.writer import CacheWriter
from avcil.cli import app


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("local") / "c")


@pytest.fixture
def url(s3: str) -> str:
    return f"{s3}/features.zarr"


@pytest.fixture
def written(s3: str, sample_in_bucket: str) -> str:
    """Give the URL of the sample, for tests that only read; `s3` has the way to it."""
    return sample_in_bucket


@pytest.fixture(scope="module")
def sample_in_bucket(s3_environment: dict[str, str]) -> str:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_environment.items():
            patch.setenv(name, value)
        return write("s3://bucket/sample.zarr")


def bucket(url: str) -> obstore.store.ObjectStore:
    return BucketFiles(url, write=True)._bucket


def write(url: str, **options: object) -> str:
    """Write the sample to a URL; Path() would swallow a slash of it."""
    write_sample(url, **options)  # type: ignore[arg-type]
    return url


def assert_same_clips(one: Path | str, other: Path | str) -> None:
    first, second = FeatureStore.open(one), FeatureStore.open(other)
    assert first.failures == second.failures
    assert np.array_equal(first.status, second.status)
    clips, expected = first.load(first.rows()), second.load(second.rows())
    for name in ("visual", "audio", "visual_lengths", "audio_lengths", "labels"):
        assert np.array_equal(getattr(clips, name), getattr(expected, name)), name


@pytest.mark.parametrize("storage", [Storage(), Storage(numbers="int8", compression="zstd")])
def test_a_cache_in_a_bucket_equals_the_local_one(
    tmp_path: Path, url: str, storage: Storage
) -> None:
    write_sample(tmp_path / "c", storage=storage)
    write(url, storage=storage)
    assert_same_clips(url, tmp_path / "c")
    assert not verify(url).damages


def test_it_has_the_files_of_the_local_one_byte_for_byte(local: Path, written: str) -> None:
    files = open_files(written)
    dated = {local / "zarr.json", local / "status/lock"}
    for path in {path for path in local.rglob("*") if path.is_file()} - dated:
        assert files.read(str(path.relative_to(local))) == path.read_bytes(), path
    assert abs(files.size_bytes() - open_files(local).size_bytes()) < 100


def test_clips_come_in_any_order(local: Path, written: str) -> None:
    store, expected = avcil.cache.open(written), avcil.cache.open(local)
    for rows in ([3], [5, 2, 2, 39], list(range(20, 8, -1))):
        assert np.array_equal(store.load(rows).visual, expected.load(rows).visual)


def test_written_shards_are_kept(local: Path, url: str) -> None:
    write(url, shards=[0, 3])
    with CacheWriter.open(url, sample_manifest(), ENCODING) as writer:
        assert writer.pending() == [1, 2, 4]
    write(url)
    assert_same_clips(url, local)


CHILD = """
import os, sys
from avcil.cache.samples import sample_item, sample_manifest, ENCODING
from avcil.cache.writer import CacheWriter
class Deadly(list):
    def __getitem__(self, i):
        return super().__getitem__(i) if i < 3 else os.kill(os.getpid(), 9)
with CacheWriter.open(sys.argv[1], sample_manifest(), ENCODING) as writer:
    writer.commit(0, [sample_item(row) for row in writer.rows(0)])
    writer.commit(1, Deadly(sample_item(row) for row in writer.rows(1)))
"""


def test_a_killed_writer_leaves_whole_shards_and_is_in_nobodys_way(local: Path, url: str) -> None:
    child = subprocess.run([sys.executable, "-c", CHILD, url], check=False)
    assert child.returncode == -signal.SIGKILL
    with CacheWriter.open(url, sample_manifest(), ENCODING) as writer:
        assert writer.pending() == [1, 2, 3, 4]
    write(url)
    assert_same_clips(url, local)


def test_processes_that_join_write_shards_of_their_own(local: Path, url: str) -> None:
    with CacheWriter.open(url, sample_manifest(), ENCODING) as writer:
        for shard in writer.pending():
            with CacheWriter.join(url) as other:
                other.commit(shard, [sample_item(row) for row in other.rows(shard)])
            writer.refresh(shard)
        assert writer.pending() == []
        assert list(writer.failures.values()) == ["no audio stream"]
    assert_same_clips(url, local)


# --- one writer


def test_a_second_writer_is_refused_and_told_of_the_first(url: str) -> None:
    with CacheWriter.open(url, sample_manifest(), ENCODING):
        holder = f"process {os.getpid()} on {socket.gethostname()}, last renewed . s ago"
        with pytest.raises(CacheBusy, match=holder):
            CacheWriter.open(url, sample_manifest(), ENCODING)
    CacheWriter.open(url, sample_manifest(), ENCODING).close()


def test_a_holder_elsewhere_is_waited_for_until_its_lease_runs_out(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = bucket(write(url))
    obstore.put(store, "status/lock", json.dumps({"pid": 1, "host": "elsewhere"}).encode())
    with pytest.raises(CacheBusy, match=r"process 1 on elsewhere.*expires after 180 s"):
        CacheWriter.open(url, sample_manifest(), ENCODING)
    monkeypatch.setattr(lease, "LIFE", -lease.LIFE)
    CacheWriter.open(url, sample_manifest(), ENCODING).close()


def test_a_lease_is_renewed_while_it_is_held(url: str) -> None:
    store = bucket(url)
    lease = Lease.acquire(store, "status/lock", url, renewal_s=0.01)
    first = obstore.head(store, "status/lock")["last_modified"]
    while obstore.head(store, "status/lock")["last_modified"] == first:
        lease.check()
    lease.release()
    assert bytes(obstore.get(store, "status/lock").bytes()) == b""


def test_a_holder_whose_lease_was_removed_notices(url: str) -> None:
    store = bucket(url)
    lease = Lease.acquire(store, "status/lock", url, renewal_s=0.01)
    obstore.delete(store, "status/lock")
    lease._renewing.join(timeout=30)
    with pytest.raises(CacheBusy):
        lease.check()
    lease.release()


def test_a_lease_whose_answer_was_lost_is_ones_own(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, put = bucket(url), obstore.put

    def unanswered(*args: Any, **options: Any) -> object:
        put(*args, **options)
        return put(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(obstore, "put", unanswered)  # as its client does when it tries again
        lease = Lease.acquire(store, "status/lock", url)
    lease.check()
    lease.release()
    assert bytes(obstore.get(store, "status/lock").bytes()) == b""


def test_a_holder_whose_lease_was_taken_notices(url: str) -> None:
    store = bucket(url)
    lease = Lease.acquire(store, "status/lock", url, renewal_s=0.01)
    obstore.put(store, "status/lock", b'{"pid": 1, "host": "elsewhere"}')
    lease._renewing.join(timeout=30)
    with pytest.raises(CacheBusy, match="is being written by another process"):
        lease.check()
    lease.release()
    assert b"elsewhere" in bytes(obstore.get(store, "status/lock").bytes())


def test_a_store_without_conditional_puts_is_written_with_a_warning(
    local: Path, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", "disabled")
    write(url)
    assert "this store supports no lock" in capsys.readouterr().err
    assert_same_clips(url, local)


# --- damage


def test_a_lost_and_a_changed_shard_are_found_and_repaired(local: Path, url: str) -> None:
    store = bucket(write(url))
    obstore.delete(store, "visual/c/1/0/0")
    content = bytearray(obstore.get(store, "audio/c/2/0/0").bytes())
    content[100] ^= 1
    obstore.put(store, "audio/c/2/0/0", bytes(content))
    with pytest.raises(avcil.cache.errors.ShardDamaged, match=r"clip-\d+"):
        avcil.cache.open(url).load([8])
    assert {damage.shard for damage in verify_and_repair(url).damages} == {1, 2}
    with CacheWriter.open(url, sample_manifest(), ENCODING) as writer:
        for shard in writer.pending():
            writer.commit(shard, [sample_item(row) for row in writer.todo(shard)])
    assert_same_clips(url, local)


# --- errors of one line


def test_what_is_not_a_cache_is_left_alone(url: str) -> None:
    obstore.put(bucket(url), "thesis.tex", b"...")
    with pytest.raises(SchemaMismatch, match="contains other files"):
        write(url)
    with pytest.raises(CacheNotFound, match=f"no cache at {url}"):
        avcil.cache.open(url)


def test_another_encoder_is_refused(written: str) -> None:
    other = replace(ENCODING, fingerprint="other")
    with pytest.raises(FingerprintMismatch, match="'sample-1' in the cache, 'other' now"):
        CacheWriter.open(written, sample_manifest(), other)


@pytest.mark.parametrize(
    ("url", "environment", "message"),
    [
        ("s3://no-bucket/c", {}, "there is no such bucket: create it"),
        (
            "s3://bucket/c",
            {
                "AWS_ACCESS_KEY_ID": None,
                "AWS_SECRET_ACCESS_KEY": None,
                "AWS_METADATA_ENDPOINT": "http://127.0.0.1:1",
            },
            r"no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY \(",
        ),
        ("s3://bucket/c", {"AWS_ACCESS_KEY_ID": None}, "are incomplete: set AWS_ACCESS_KEY_ID"),
        ("s3://bucket/c", {"AWS_SECRET_ACCESS_KEY": None}, "are incomplete: set AWS_SECRET_ACC"),
        ("s3:///c", {}, "names no bucket: write s3://BUCKET/PATH or gs://BUCKET/PATH"),
        ("ftp://bucket/c", {}, "names no bucket: write s3://BUCKET/PATH or gs://BUCKET/PATH"),
        ("s3://bucket/c", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "does not respond: check th"),
    ],
)
def test_a_bucket_that_cannot_be_reached_is_one_line(
    s3: str,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    environment: dict[str, str | None],
    message: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    for use in (avcil.cache.open, write):
        with pytest.raises(StoreUnreachable, match=message) as told:
            use(url)
        assert url in str(told.value)
        assert "\n" not in str(told.value)


def test_a_missing_extra_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "obstore.py").write_text("raise ImportError('not installed')")
    command = [sys.executable, "-m", "avcil", "cache", "info", "--cache", "s3://bucket/c"]
    shown = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert shown.returncode == 1
    assert "pip install 'avcil[s3]'" in shown.stderr
    assert len(shown.stderr.splitlines()) == 1


def test_a_forked_process_is_refused_instead_of_waiting_forever(written: str) -> None:
    store = avcil.cache.open(written)
    loader = DataLoader(
        ClipDataset(store, store.rows()), num_workers=1, multiprocessing_context="fork"
    )
    with pytest.raises(StoreUnreachable, match='multiprocessing_context="spawn"'):
        next(iter(loader))
    for worker in multiprocessing.active_children():
        worker.terminate()  # else PyTorch waits 5 s for it when the loader is collected


# --- the command


def test_the_commands_take_urls(written: str, tmp_path: Path) -> None:
    outputs = []
    for command in (["info"], ["verify"], ["export", str(tmp_path / "out.npz")]):
        shown = CliRunner().invoke(app, ["cache", *command, "--cache", written])
        assert shown.exit_code == 0, shown.exception
        outputs.append(shown.output)
    assert "on disk" in outputs[0]
    assert len(np.load(tmp_path / "out.npz")["label"]) == 39


@pytest.mark.slow
def test_training_reads_a_cache_in_a_bucket(s3: str, toy_cache: Path, tmp_path: Path) -> None:
    url = f"{s3}/toy.zarr"
    for path in toy_cache.rglob("*"):
        if path.is_file():
            open_files(url, write=True).write(str(path.relative_to(toy_cache)), path.read_bytes())
    results: list[object] = []
    for cache in (url, str(toy_cache)):
        runs = tmp_path / str(len(results))
        options = ["--tasks", "3", "--epochs", "1", "--method", "lwf", "--runs", str(runs)]
        shown = CliRunner().invoke(app, ["train", "--cache", cache, *options])
        assert shown.exit_code == 0, (shown.exception, shown.output)
        (found,) = runs.rglob("results.json")
        results.append(json.loads(found.read_text())["correct"])
    assert results[0] == results[1]
