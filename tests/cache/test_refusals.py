"""What a writer refuses, with both sides named, and what it says of a disk that refuses it."""

import errno
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import zarr

from avcil.cache.errors import (
    CacheUnwritable,
    FingerprintMismatch,
    ManifestMismatch,
    SchemaMismatch,
)
from avcil.cache.samples import (
    ENCODING,
    sample_item,
    sample_manifest,
    write_sample,
)
from avcil.cache.schema import Manifest, Split, Storage
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


CHILD = """
import sys
from avcil.cache.samples import sample_item, sample_manifest, ENCODING
from avcil.cache.writer import CacheWriter
print("ready", flush=True)
with CacheWriter.open(sys.argv[1], sample_manifest(), ENCODING, shard_clips=2) as writer:
    for shard in writer.pending():
        writer.commit(shard, [sample_item(row) for row in writer.rows(shard)])
"""


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
    assert f"1 only in the cache: '{old.ids[0]}' (train, Straßenmusik)" in text
    assert "2 only in the list: 'new-1' (test, Straßenmusik), 'new-2' (val, dog)" in text
    assert "--cache" in text


def test_another_order_of_classes_is_refused(cache: Path) -> None:
    old = sample_manifest()
    names = tuple(reversed(old.classes))
    rows: list[tuple[Split, int, str]] = [
        (s, 2 - int(n), i) for s, n, i in zip(old.splits, old.labels, old.ids, strict=True)
    ]
    with pytest.raises(ManifestMismatch, match="the classes or their order differ"):
        CacheWriter.open(cache, Manifest.of("sample", names, rows), ENCODING)


def test_another_layout_is_refused_where_it_was_asked_for(cache: Path) -> None:
    with pytest.raises(SchemaMismatch, match="shards of 8 clips, not 16"):
        CacheWriter.open(cache, sample_manifest(), ENCODING, shard_clips=16)
    with pytest.raises(SchemaMismatch, match="numbers 'float16' in the cache, 'int8' now"):
        CacheWriter.open(cache, sample_manifest(), ENCODING, storage=Storage(numbers="int8"))


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(SchemaMismatch, match="contains other files"):
        CacheWriter.open(tmp_path, sample_manifest(), ENCODING)
    group = zarr.create_group(tmp_path / "mine.zarr")
    with pytest.raises(SchemaMismatch, match="contains other files"):
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
