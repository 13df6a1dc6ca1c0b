"""Published features come in with their values, without running their code or filling memory."""

import os
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

import avcil.cache
from avcil.cache.convert.avcil_features import import_avcil
from avcil.cache.convert.export import FORMATS, Format, export
from avcil.cache.errors import (
    CacheUnwritable,
    DictionaryRefused,
    FingerprintMismatch,
    SourceMissing,
)
from avcil.cache.reader import FeatureStore
from avcil.cache.samples import FAILED, write_sample
from avcil.cache.schema import Storage
from avcil.cache.writer import CacheWriter

TOKENS, WIDTH = 8 * 4, 24
CLASSES = {"Church bell": 1, "Straße": 0, "cat": 2}
Features = dict[str, NDArray[np.float32]]


def clip_ids() -> dict[str, dict[int, list[str]]]:
    """Lists as published: classes and ids in no particular order."""
    return {
        split: {label: [f"{split}_{label}-{i:02d}" for i in (2, 0, 1)] for label in (2, 0, 1)}
        for split in ("train", "val", "test")
    }


def save(path: Path, content: object, protocol: int = 3) -> None:
    """Write as np.save does, in the pickle protocol of the NumPy of that day."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.empty((), object)
    array[()] = content
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|O", "fortran_order": False, "shape": ()}
        )
        pickle.dump(array, file, protocol=protocol)


def features(*shape: int) -> Features:
    rng = np.random.default_rng(0)
    ids = [clip for labels in clip_ids().values() for some in labels.values() for clip in some]
    return {clip: rng.normal(size=shape).astype(np.float32) for clip in ids}


def save_splits(folder: Path) -> None:
    save(folder / "category_encode_dict.npy", CLASSES)
    save(folder / "all_classId_vid_dict.npy", clip_ids())


def save_h5(path: Path, content: Features) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for clip, array in content.items():
            file[clip] = array


def published(folder: Path, layout: str) -> tuple[Features, Features]:
    """Write features in one of the published layouts."""
    visual, audio = features(TOKENS, WIDTH), features(WIDTH)
    save_splits(folder)
    save(folder / "audio_pretrained_feature/audio_pretrained_feature_dict.npy", audio)
    if layout == "ave":
        save(folder / "visual_pretrained_feature/visual_pretrained_feature_dict.npy", visual)
    elif layout == "ks":
        save_h5(folder / "visual_pretrained_feature/visual_features.h5", visual)
    else:
        save_h5(folder / "visual_features.h5", visual)
    return visual, audio


@pytest.mark.parametrize("layout", ["ave", "ks", "vs100"])
def test_published_features_come_in_up_to_rounding(tmp_path: Path, layout: str) -> None:
    visual, audio = published(tmp_path / "in", layout)
    done = import_avcil(tmp_path / "in", layout, tmp_path / "c")
    assert (done.clips, done.kept, done.failures) == (27, 0, {})
    store = avcil.cache.open(tmp_path / "c")
    assert store.manifest.classes == ("Straße", "Church bell", "cat")
    clips = store.load(store.rows())
    for row, clip in enumerate(store.manifest.ids):
        split, rest = clip.split("_")
        assert store.manifest.splits[row] == split
        assert store.manifest.labels[row] == clips.labels[row] == int(rest[0])
        np.testing.assert_array_equal(clips.visual[row], visual[clip].astype(np.float16))
        np.testing.assert_array_equal(clips.audio[row], audio[clip][None].astype(np.float16))


def test_an_import_says_what_made_the_features(tmp_path: Path) -> None:
    published(tmp_path / "in", "ks")
    import_avcil(tmp_path / "in", "ks", tmp_path / "c")
    encoding = avcil.cache.open(tmp_path / "c").encoding
    assert (encoding.encoder, encoding.fingerprint) == ("audiomae+videomae", "audiomae+videomae")
    assert (encoding.visual_tokens, encoding.tokens_per_frame) == (TOKENS, TOKENS // 8)
    assert (encoding.audio_tokens, encoding.audio_width) == (1, WIDTH)


def test_a_clip_without_features_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    visual, _ = published(tmp_path / "in", "ks")
    del visual["val_1-00"]
    (tmp_path / "in/visual_pretrained_feature/visual_features.h5").unlink()
    save_h5(tmp_path / "in/visual_features.h5", visual)
    done = import_avcil(tmp_path / "in", "ks", tmp_path / "c")
    assert done.failures == {"val_1-00": "no visual features in the imported files"}
    assert len(avcil.cache.open(tmp_path / "c").rows()) == 26


def test_a_clip_of_another_shape_costs_that_clip_alone(tmp_path: Path) -> None:
    visual, audio = published(tmp_path / "in", "ks")
    visual["val_1-00"], audio["test_2-01"] = np.ones((7, 24), np.float32), np.ones(5, np.float32)
    (tmp_path / "in/visual_pretrained_feature/visual_features.h5").unlink()
    save_h5(tmp_path / "in/visual_features.h5", visual)
    save(tmp_path / "in/audio_pretrained_feature/audio_pretrained_feature_dict.npy", audio)
    assert import_avcil(tmp_path / "in", "ks", tmp_path / "c").failures == {
        "val_1-00": "its visual features have shape [7, 24], not [32, 24]",
        "test_2-01": "its audio features have shape [1, 5], not [1, 24]",
    }
    assert len(avcil.cache.open(tmp_path / "c").rows()) == 25


@pytest.mark.parametrize("part", [0, 100, 0.5, 0.95])
def test_a_cut_file_of_features_is_named(tmp_path: Path, part: float) -> None:
    published(tmp_path / "in", "vs100")
    file = tmp_path / "in/visual_features.h5"
    content = file.read_bytes()
    file.write_bytes(content[: int(part * len(content)) if part < 1 else int(part)])
    with pytest.raises(
        DictionaryRefused, match=r"features.h5 is not a readable HDF5 file \(.*again"
    ):
        import_avcil(tmp_path / "in", "vs100", tmp_path / "c")


def test_a_page_saved_as_features_is_named(tmp_path: Path) -> None:
    published(tmp_path / "in", "vs100")
    (tmp_path / "in/visual_features.h5").write_text("<html>quota exceeded")
    with pytest.raises(DictionaryRefused, match="is not a readable HDF5 file"):
        import_avcil(tmp_path / "in", "vs100", tmp_path / "c")


@pytest.mark.parametrize(
    ("lists", "text"),
    [
        (
            {"train": {0: ["a"]}, "test": {1: ["a"]}},
            "1 clip ids occur more than once, for example 'a'",
        ),
        ({"train": {0: ["a"], 3: ["b"]}}, r"labels must lie in 0\.\.2"),
        ({"train": ["a"]}, "are invalid"),
        ({"train": {0: [5, "a"]}}, "are invalid"),
        ({"train": {"cat": ["a"]}}, "are invalid"),
    ],
)
def test_lists_that_do_not_add_up_are_refused_with_their_folder(
    tmp_path: Path, lists: object, text: str
) -> None:
    save(tmp_path / "category_encode_dict.npy", CLASSES)
    save(tmp_path / "all_classId_vid_dict.npy", lists)
    with pytest.raises(DictionaryRefused, match=text) as caught:
        import_avcil(tmp_path, "ks", tmp_path / "c")
    assert str(tmp_path) in str(caught.value)


def test_an_import_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(tmp_path / "in", "vs100")
    commit: Callable[..., None] = CacheWriter.commit

    def interrupted(self: CacheWriter, shard: int, tokens: Any) -> None:
        if shard == 2:
            raise KeyboardInterrupt
        commit(self, shard, tokens)

    with monkeypatch.context() as patch:
        patch.setattr(CacheWriter, "commit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            import_avcil(tmp_path / "in", "vs100", tmp_path / "c")
    assert import_avcil(tmp_path / "in", "vs100", tmp_path / "c").kept == 2
    assert len(FeatureStore.open(tmp_path / "c").rows()) == 27


def test_extracted_and_imported_features_are_not_mixed(tmp_path: Path) -> None:
    published(tmp_path / "in", "ks")
    write_sample(tmp_path / "c")
    with pytest.raises(FingerprintMismatch, match=r"'sample' in the cache, 'audiomae\+videomae'"):
        import_avcil(tmp_path / "in", "ks", tmp_path / "c")


def test_features_can_be_imported_as_int8(tmp_path: Path) -> None:
    visual, _ = published(tmp_path / "in", "ks")
    import_avcil(tmp_path / "in", "ks", tmp_path / "c", storage=Storage(numbers="int8"))
    store = avcil.cache.open(tmp_path / "c")
    error = store.load([0]).visual[0] - visual[store.manifest.ids[0]]
    assert 0 < np.abs(error).max() < 0.03
    assert 1e-3 < store.rounding()["visual"] < 2e-2


@pytest.mark.parametrize(
    ("missing", "text"),
    [
        ("audio_pretrained_feature", "no audio in .*audio_pretrained_feature_dict.npy"),
        ("visual_pretrained_feature", "no visual in .* or visual_pretrained_feature/visual_feat"),
        ("category_encode_dict.npy", "no lists of clips in .*category_encode_dict.npy"),
    ],
)
def test_a_missing_file_is_named_with_where_it_was_looked_for(
    tmp_path: Path, missing: str, text: str
) -> None:
    published(tmp_path / "in", "ks")
    (tmp_path / "in" / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(SourceMissing, match=text):
        import_avcil(tmp_path / "in", "ks", tmp_path / "c")


def test_features_of_other_clips_are_refused(tmp_path: Path) -> None:
    published(tmp_path / "in", "ks")
    save(tmp_path / "in/all_classId_vid_dict.npy", {"train": {0: ["x"]}, "val": {}, "test": {}})
    with pytest.raises(SourceMissing, match="none of the 1 clips has features"):
        import_avcil(tmp_path / "in", "ks", tmp_path / "c")


@pytest.mark.parametrize("layout", ["ave", "ks"])
def test_an_import_holds_less_than_two_batches_of_the_source(tmp_path: Path, layout: str) -> None:
    """One batch is the clips of a shard as published, float32; 6 shards of 8 are imported."""
    ids = [f"clip-{i:03d}" for i in range(48)]
    shape = (8 * 32, 128)
    rng = np.random.default_rng(0)
    visual: Features = {clip: rng.normal(size=shape).astype(np.float32) for clip in ids}
    folder = tmp_path / "in"
    save_splits(folder)
    save(folder / "all_classId_vid_dict.npy", {"train": {0: ids}, "val": {}, "test": {}})
    audio = {clip: array[0] for clip, array in visual.items()}
    save(folder / "audio_pretrained_feature/audio_pretrained_feature_dict.npy", audio)
    if layout == "ave":
        save(folder / "visual_pretrained_feature/visual_pretrained_feature_dict.npy", visual)
    else:
        save_h5(folder / "visual_features.h5", visual)
    del visual, audio
    batch = 8 * 4 * (shape[0] + 1) * shape[1]
    import_avcil(folder, "warm", tmp_path / "warm")  # what imports leave behind is not counted
    tracemalloc.start()
    try:
        import_avcil(folder, "x", tmp_path / "c")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert batch / 4 < peak < 2 * batch


# --- export


def read_back(path: Path, to: Format) -> dict[str, NDArray[Any]]:
    if to == "h5":
        with h5py.File(path) as file:
            return {name: data[()] for name, data in file.items()}
    if to == "npz":
        with np.load(path) as file:
            return dict(file)
    return dict(load_file(path))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return avcil.cache.open(write_sample(tmp_path_factory.mktemp("sample") / "c"))


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("split", [None, "val"])
def test_an_export_holds_the_clips_that_have_tokens(
    sample: FeatureStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    to: Format,
    split: Any,
) -> None:
    monkeypatch.setattr("avcil.cache.convert.export.BLOCK_BYTES", 5000)  # several blocks
    rows = export(sample, tmp_path / "out", to, split=split)
    assert rows.tolist() == sample.rows(split).tolist()
    assert FAILED not in rows
    clips, file = sample.load(rows), read_back(tmp_path / "out", to)
    np.testing.assert_array_equal(file["visual"], clips.visual)
    np.testing.assert_array_equal(file["audio"], clips.audio)
    np.testing.assert_array_equal(file["visual_length"], clips.visual_lengths)
    np.testing.assert_array_equal(file["label"], clips.labels)
    ids = [bytes(text).rstrip(b"\0").decode() for text in file["id"]]
    assert ids == [sample.manifest.ids[row] for row in rows]
    assert os.listdir(tmp_path) == ["out"]  # noqa: PTH208


def test_an_export_never_overwrites(sample: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("thesis")
    with pytest.raises(CacheUnwritable, match="already exists"):
        export(sample, tmp_path / "out", "npz")
    assert (tmp_path / "out").read_text() == "thesis"
