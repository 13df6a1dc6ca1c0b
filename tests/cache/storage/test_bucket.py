"""Caches in a bucket, on a server that speaks S3: the same clips, one writer, clear errors."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import obstore
import pytest
from obstore.store import ObjectStore
from torch.utils.data import DataLoader
from typer.testing import CliRunner

import avcil.cache
from avcil.cache.dataset import ClipDataset
from avcil.cache.errors import CacheNotFound, FingerprintMismatch, SchemaMismatch, StoreUnreachable
from avcil.cache.reader import FeatureStore
from avcil.cache.repair import verify_and_repair
from avcil.cache.samples import ENCODING, sample_item, sample_manifest, write_sample
from avcil.cache.schema import Storage
from avcil.cache.storage.open import open_files
from avcil.cache.verify import verify
from avcil.cache.writer import CacheWriter
from avcil.cli import app


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
    write_sample(url, storage=storage)
    assert_same_clips(url, tmp_path / "c")
    assert not verify(url).damages


def test_a_cache_in_a_bucket_has_the_files_of_the_local_one(
    sample: Path, sample_url: str, token_files: Callable[[Path], dict[str, bytes]]
) -> None:
    files = open_files(sample_url)
    for key, content in token_files(sample).items():
        assert files.read(key) == content, key
    assert abs(files.size_bytes() - open_files(sample).size_bytes()) < 100


def test_clips_in_a_bucket_load_in_any_order(sample: Path, sample_url: str) -> None:
    store, expected = avcil.cache.open(sample_url), avcil.cache.open(sample)
    for rows in ([3], [5, 2, 2, 39], list(range(20, 8, -1))):
        assert np.array_equal(store.load(rows).visual, expected.load(rows).visual)


def test_written_shards_are_kept(sample: Path, url: str) -> None:
    write_sample(url, shards=[0, 3])
    with CacheWriter.open(url, sample_manifest(), ENCODING) as writer:
        assert writer.pending() == [1, 2, 4]
    write_sample(url)
    assert_same_clips(url, sample)


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


def test_a_killed_writer_leaves_complete_shards_and_blocks_nobody(sample: Path, url: str) -> None:
    child = subprocess.run([sys.executable, "-c", CHILD, url], check=False)
    assert child.returncode == -signal.SIGKILL
    with CacheWriter.open(url, sample_manifest(), ENCODING) as writer:
        assert writer.pending() == [1, 2, 3, 4]
    write_sample(url)
    assert_same_clips(url, sample)


def test_processes_that_join_write_shards_of_their_own(sample: Path, url: str) -> None:
    with CacheWriter.open(url, sample_manifest(), ENCODING) as writer:
        for shard in writer.pending():
            with CacheWriter.join(url) as other:
                other.commit(shard, [sample_item(row) for row in other.rows(shard)])
            writer.refresh(shard)
        assert writer.pending() == []
        assert list(writer.failures.values()) == ["no audio stream"]
    assert_same_clips(url, sample)


def test_a_store_without_conditional_puts_is_written_with_a_warning(
    sample: Path, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", "disabled")
    write_sample(url)
    assert "this store supports no lock" in capsys.readouterr().err
    assert_same_clips(url, sample)


# --- damage


def test_a_lost_and_a_changed_shard_are_found_and_repaired(
    sample: Path, url: str, bucket: ObjectStore
) -> None:
    write_sample(url)
    obstore.delete(bucket, "visual/c/1/0/0")
    content = bytearray(obstore.get(bucket, "audio/c/2/0/0").bytes())
    content[100] ^= 1
    obstore.put(bucket, "audio/c/2/0/0", bytes(content))
    with pytest.raises(avcil.cache.errors.ShardDamaged, match=r"clip-\d+"):
        avcil.cache.open(url).load([8])
    assert {damage.shard for damage in verify_and_repair(url).damages} == {1, 2}
    with CacheWriter.open(url, sample_manifest(), ENCODING) as writer:
        for shard in writer.pending():
            writer.commit(shard, [sample_item(row) for row in writer.todo(shard)])
    assert_same_clips(url, sample)


# --- errors of one line


def test_other_objects_are_left_alone(url: str, bucket: ObjectStore) -> None:
    obstore.put(bucket, "thesis.tex", b"...")
    with pytest.raises(SchemaMismatch, match="contains other files"):
        write_sample(url)
    with pytest.raises(CacheNotFound, match=f"no cache at {url}"):
        avcil.cache.open(url)


def test_another_encoder_is_refused(sample_url: str) -> None:
    other = replace(ENCODING, fingerprint="other")
    with pytest.raises(FingerprintMismatch, match="'sample-1' in the cache, 'other' now"):
        CacheWriter.open(sample_url, sample_manifest(), other)


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
    for use in (avcil.cache.open, write_sample):
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


def test_a_forked_process_is_refused_instead_of_waiting_forever(sample_url: str) -> None:
    store = avcil.cache.open(sample_url)
    loader = DataLoader(
        ClipDataset(store, store.rows()), num_workers=1, multiprocessing_context="fork"
    )
    with pytest.raises(StoreUnreachable, match='multiprocessing_context="spawn"'):
        next(iter(loader))
    for worker in multiprocessing.active_children():
        worker.terminate()  # else PyTorch waits 5 s for it when the loader is collected


# --- the command


def test_the_commands_take_urls(sample_url: str, tmp_path: Path) -> None:
    outputs = []
    for command in (["info"], ["verify"], ["export", str(tmp_path / "out.npz")]):
        shown = CliRunner().invoke(app, ["cache", *command, "--cache", sample_url])
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
