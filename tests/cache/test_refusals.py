"""What a writer refuses; the message names what is in the cache and what was requested."""

from dataclasses import replace
from pathlib import Path

import pytest
import zarr

from avcil.cache.errors import FingerprintMismatch, ManifestMismatch, SchemaMismatch
from avcil.cache.samples import ENCODING, sample_manifest
from avcil.cache.schema import Manifest, Split, Storage
from avcil.cache.writer import CacheWriter


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
