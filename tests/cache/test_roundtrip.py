"""What is written is what is read, in whatever order and however often it is asked for."""

import pickle
import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

import avcil.cache
from avcil.cache.errors import CacheIncomplete, CacheNotFound, SchemaMismatch
from avcil.cache.format.quantize import decode, encode
from avcil.cache.reader import FeatureStore
from avcil.cache.samples import ENCODING, FAILED, sample_manifest, sample_tokens, write_sample
from avcil.cache.schema import Clips, Compression, Numbers, Scales, Storage, Tokens
from avcil.cache.writer import CacheWriter

STORED = [row for row in range(40) if row != FAILED]


def padded(row: int) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    tokens = sample_tokens(row)
    visual, audio = np.zeros((6, 80), np.float16), np.zeros((5, 8), np.float16)
    visual[: len(tokens.visual)] = tokens.visual
    audio[: len(tokens.audio)] = tokens.audio
    return visual, audio


def assert_clips(clips: Clips, rows: list[int]) -> None:
    """Compare with tokens made anew."""
    assert clips.visual.shape == (len(rows), 6, 80)
    assert clips.audio.shape == (len(rows), 5, 8)
    labels = sample_manifest().labels
    for i, row in enumerate(rows):
        visual, audio = padded(row)
        np.testing.assert_array_equal(clips.visual[i], visual)
        np.testing.assert_array_equal(clips.audio[i], audio)
        assert (clips.visual_lengths[i], clips.audio_lengths[i]) == (1 + row % 6, 1 + row % 5)
        assert clips.labels[i] == labels[row]


SELECTIONS = [[0], [3, 4, 5], [39, 0, 8, 9, 8, 8], [], STORED, STORED[::-1], [6, 8]]


@pytest.mark.parametrize("rows", SELECTIONS)
def test_load_returns_the_clips_in_the_requested_order(
    sample: Path, compressed: Path, rows: list[int]
) -> None:
    assert_clips(avcil.cache.open(sample).load(rows), rows)
    assert_clips(avcil.cache.open(compressed).load(rows), rows)


def test_a_cache_read_by_its_url_gives_the_same_clips(sample: Path) -> None:
    url = f"file://{sample}"
    store = avcil.cache.open(url)
    assert store.failures == {sample_manifest().ids[FAILED]: "no audio stream"}
    for rows in SELECTIONS:
        assert_clips(store.load(rows), rows)


def test_any_zarr_reader_sees_the_same_values_and_no_warning(sample: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(sample, mode="r")
        arrays = {name: np.asarray(array[:]) for name, array in group.arrays()}
    for row in STORED:
        np.testing.assert_array_equal(arrays["visual"][row], padded(row)[0])
        np.testing.assert_array_equal(arrays["audio"][row], padded(row)[1])
    assert arrays["visual_length"].tolist() == [0 if r == FAILED else 1 + r % 6 for r in range(40)]
    assert arrays["status"].tolist() == [2 if r == FAILED else 1 for r in range(40)]
    assert np.isnan(arrays["visual"][FAILED]).all()
    assert bytes(arrays["id"][0]).rstrip(b"\0").decode() == sample_manifest().ids[0]


def test_a_given_buffer_is_filled_and_its_first_clips_are_returned(store: FeatureStore) -> None:
    buffer = store.load(STORED)
    clips = store.load([5, 2], out=buffer)
    assert_clips(clips, [5, 2])
    for field in fields(Clips):
        assert np.shares_memory(getattr(clips, field.name), getattr(buffer, field.name))


def test_a_buffer_that_does_not_fit_is_refused(store: FeatureStore) -> None:
    buffer = store.load([0, 1, 2])
    with pytest.raises(ValueError, match="at least"):
        store.load([0, 1, 2, 3], out=buffer)
    with pytest.raises(ValueError, match="float16"):
        store.load([0], out=replace(buffer, visual=buffer.visual.astype(np.float32)))
    with pytest.raises(ValueError, match="contiguous"):
        store.load([0], out=replace(buffer, visual=buffer.visual[::2]))


def test_rows_are_those_with_tokens_of_a_split_and_of_classes(store: FeatureStore) -> None:
    manifest = sample_manifest()
    assert store.rows().tolist() == STORED
    assert {manifest.splits[row] for row in store.rows("val")} == {"val"}
    assert len(store.rows("train")) + len(store.rows("val")) + len(store.rows("test")) == 39
    chosen = store.rows("train", [0, 2])
    assert set(manifest.labels[chosen]) == {0, 2}
    assert store.rows("train", []).tolist() == []


def test_the_training_rows_of_neighbouring_classes_are_one_range(store: FeatureStore) -> None:
    rows = store.rows("train", [1, 2])
    assert rows.tolist() == list(range(rows[0], rows[-1] + 1))


@pytest.mark.parametrize("row", [-1, 40])
def test_a_row_that_does_not_exist_is_refused(store: FeatureStore, row: int) -> None:
    with pytest.raises(IndexError, match=f"row {row} is not in 0..39"):
        store.load([row])


@pytest.mark.parametrize("rows", [[[0]], [0.5], [True]])
def test_rows_that_are_no_list_of_integers_are_refused(
    store: FeatureStore, rows: list[int]
) -> None:
    with pytest.raises(IndexError, match="integers"):
        store.load(rows)


def test_a_failed_clip_is_not_loaded_and_says_why(store: FeatureStore) -> None:
    assert store.failures == {sample_manifest().ids[FAILED]: "no audio stream"}
    with pytest.raises(CacheIncomplete, match=r"row 7, shard 0.*no audio stream"):
        store.load([6, FAILED])


def test_an_unfinished_cache_opens_only_when_asked_to(tmp_path: Path) -> None:
    path = write_sample(tmp_path / "c", shards=[0, 2])
    with pytest.raises(CacheIncomplete, match=r"2 of 5 shards.*avcil extract"):
        avcil.cache.open(path)
    store = FeatureStore.open(path, complete=False)
    assert_clips(store.load([0, 16]), [0, 16])
    assert store.rows().tolist() == [0, 1, 2, 3, 4, 5, 6, *range(16, 24)]
    with pytest.raises(CacheIncomplete, match=r"row 8, shard 1.*not extracted yet"):
        store.load([8])


def test_no_cache_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(CacheNotFound, match=r"no cache at .*avcil extract"):
        avcil.cache.open(tmp_path / "nothing")


def test_a_foreign_zarr_and_another_format_are_refused(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "foreign", attributes={"mine": 1})
    with pytest.raises(SchemaMismatch, match="not a cache of avcil"):
        avcil.cache.open(tmp_path / "foreign")
    path = write_sample(tmp_path / "c")
    header = path / "zarr.json"
    header.write_text(header.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(
        SchemaMismatch, match="cache format 2, this version of avcil reads format 1"
    ):
        avcil.cache.open(path)


def test_a_store_can_be_pickled(store: FeatureStore) -> None:
    assert_clips(pickle.loads(pickle.dumps(store)).load([3, 1]), [3, 1])


def test_the_same_tokens_give_the_same_files(
    sample: Path, tmp_path: Path, token_files: Callable[[Path], dict[str, bytes]]
) -> None:
    write_sample(tmp_path / "c", shards=[4, 1, 0])
    write_sample(tmp_path / "c")
    assert len(token_files(sample)) > 28
    assert token_files(tmp_path / "c") == token_files(sample)


def heavy_tokens() -> NDArray[np.float32]:
    """Tokens in which two channels are fifty times the others, as encoders give them."""
    tokens = np.random.default_rng(0).normal(size=(250, 1024)).astype(np.float32)
    tokens[:, [3, 700]] *= 50
    return tokens


def relative_error(tokens: NDArray[np.float32], storage: Storage) -> float:
    out = np.empty(tokens.shape, np.float16)
    decode(encode(tokens, storage), storage, out)
    return float(np.linalg.norm(out - tokens) / np.linalg.norm(tokens))


@pytest.mark.parametrize(
    ("numbers", "scales", "bound"),
    [("float16", "group", 3e-4), ("int8", "group", 2e-2), ("int8", "channel", 1e-2)],
)
def test_rounding_loses_no_more_than_promised(
    numbers: Numbers, scales: Scales, bound: float
) -> None:
    error = relative_error(heavy_tokens(), Storage(numbers=numbers, scales=scales))
    assert bound / 10 < error < bound


@pytest.mark.parametrize("scales", ["group", "channel"])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_int8_gives_every_number_within_half_a_step(
    tmp_path: Path, scales: Scales, compression: Compression
) -> None:
    storage = Storage(numbers="int8", scales=scales, compression=compression)
    store = avcil.cache.open(write_sample(tmp_path / "c", storage=storage))
    assert store.header.storage == storage
    clips = store.load(STORED)
    for i, row in enumerate(STORED):
        visual, _ = padded(row)
        steps = np.abs(visual.astype(np.float32)).max() / 127
        largest = np.abs(clips.visual[i].astype(np.float32) - visual).max()
        assert largest <= 0.5 * steps + 2e-3  # both sides are rounded to float16
        assert not clips.visual[i, clips.visual_lengths[i] :].any()


def test_the_rounding_error_of_int8_is_measured_while_writing(
    tmp_path: Path, store: FeatureStore
) -> None:
    storage = Storage(numbers="int8")
    int8 = avcil.cache.open(write_sample(tmp_path / "8", storage=storage)).rounding()
    half = store.rounding()
    assert 1e-3 < int8["visual"] < 1e-2
    assert 1e-5 < half["visual"] < 3e-4


def test_a_clip_whose_tokens_overflow_float16_fails(tmp_path: Path) -> None:
    with CacheWriter.open(tmp_path / "c", sample_manifest(3), ENCODING) as writer:
        good = sample_tokens(0)
        bad = [replace(good, visual=good.visual * x) for x in (np.float32(1e6), np.float32("nan"))]
        writer.commit(0, [good, *bad])
        assert list(writer.failures) == list(sample_manifest(3).ids[1:])
    store = avcil.cache.open(tmp_path / "c")
    assert store.rows().tolist() == [0]
    assert "visual tokens that are not finite" in store.failures[store.manifest.ids[1]]


@pytest.mark.parametrize("shape", [(7, 80), (0, 80), (3, 79), (80,)])
def test_tokens_of_a_wrong_shape_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with CacheWriter.open(tmp_path / "c", sample_manifest(1), ENCODING) as writer:
        wrong = Tokens(visual=np.zeros(shape, np.float32), audio=sample_tokens(0).audio)
        with pytest.raises(
            ValueError, match=r"visual tokens of clip 'clip-000' must be \[1..6, 80\]"
        ):
            writer.commit(0, [wrong])
        assert writer.pending() == [0]
