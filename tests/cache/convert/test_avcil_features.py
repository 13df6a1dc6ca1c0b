"""Published features are imported without running code from them or filling memory."""

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

import avcil.cache
from avcil.cache.convert.avcil_features import AUDIO, VISUAL, import_avcil
from avcil.cache.errors import DictionaryRefused, FingerprintMismatch, SourceMissing
from avcil.cache.reader import FeatureStore
from avcil.cache.samples import write_sample
from avcil.cache.schema import Storage
from avcil.cache.writer import CacheWriter

TOKENS, WIDTH = 8 * 4, 24
CLASSES = {"Church bell": 1, "Straße": 0, "cat": 2}
Features = dict[str, NDArray[np.float32]]
Save = Callable[..., None]
Published = Callable[[str], tuple[Features, Features]]


def clip_ids() -> dict[str, dict[int, list[str]]]:
    """Lists as published: classes and ids in no particular order."""
    return {
        split: {label: [f"{split}_{label}-{i:02d}" for i in (2, 0, 1)] for label in (2, 0, 1)}
        for split in ("train", "val", "test")
    }


def features(*shape: int) -> Features:
    rng = np.random.default_rng(0)
    ids = [clip for labels in clip_ids().values() for some in labels.values() for clip in some]
    return {clip: rng.normal(size=shape).astype(np.float32) for clip in ids}


def save_h5(path: Path, content: Features) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for clip, array in content.items():
            file[clip] = array


@pytest.fixture
def published(tmp_path: Path, save: Save) -> Published:
    """Write visual and audio features to `in`, in one of the published layouts."""

    def write(layout: str) -> tuple[Features, Features]:
        folder, visual, audio = tmp_path / "in", features(TOKENS, WIDTH), features(WIDTH)
        save(folder / "category_encode_dict.npy", CLASSES)
        save(folder / "all_classId_vid_dict.npy", clip_ids())
        save(folder / AUDIO[0], audio)
        if layout == "ave":
            save(folder / VISUAL[0], visual)
        else:
            save_h5(folder / VISUAL[1 if layout == "ks" else 2], visual)
        return visual, audio

    return write


@pytest.mark.parametrize("layout", ["ave", "ks", "vs100"])
def test_published_features_are_imported_up_to_rounding(
    tmp_path: Path, layout: str, published: Published
) -> None:
    visual, audio = published(layout)
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


def test_an_import_says_what_made_the_features(tmp_path: Path, published: Published) -> None:
    published("ks")
    import_avcil(tmp_path / "in", "ks", tmp_path / "c")
    encoding = avcil.cache.open(tmp_path / "c").encoding
    assert (encoding.encoder, encoding.fingerprint) == ("audiomae+videomae", "audiomae+videomae")
    assert (encoding.visual_tokens, encoding.tokens_per_frame) == (TOKENS, TOKENS // 8)
    assert (encoding.audio_tokens, encoding.audio_width) == (1, WIDTH)


def test_a_clip_without_features_or_of_another_shape_costs_that_clip_alone(
    tmp_path: Path, published: Published, save: Save
) -> None:
    visual, audio = published("vs100")
    del visual["val_1-01"]
    visual["val_1-00"], audio["test_2-01"] = np.ones((7, 24), np.float32), np.ones(5, np.float32)
    save_h5(tmp_path / "in" / VISUAL[2], visual)
    save(tmp_path / "in" / AUDIO[0], audio)
    assert import_avcil(tmp_path / "in", "vs100", tmp_path / "c").failures == {
        "val_1-00": "its visual features have shape [7, 24], not [32, 24]",
        "val_1-01": "no visual features in the imported files",
        "test_2-01": "its audio features have shape [1, 5], not [1, 24]",
    }
    assert len(avcil.cache.open(tmp_path / "c").rows()) == 24


@pytest.mark.parametrize("part", [0, 100, 0.5, 0.95, "a page"])
def test_a_cut_file_of_features_or_a_page_saved_as_one_is_named(
    tmp_path: Path, published: Published, part: float | str
) -> None:
    published("vs100")
    file = tmp_path / "in/visual_features.h5"
    if isinstance(part, str):
        file.write_text("<html>quota exceeded")
    else:
        os.truncate(file, int(part * file.stat().st_size) if part < 1 else int(part))
    with pytest.raises(DictionaryRefused, match=r"es.h5 is not a readable HDF5 file \(.*again"):
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
    tmp_path: Path, lists: object, text: str, save: Save
) -> None:
    save(tmp_path / "category_encode_dict.npy", CLASSES)
    save(tmp_path / "all_classId_vid_dict.npy", lists)
    with pytest.raises(DictionaryRefused, match=text) as caught:
        import_avcil(tmp_path, "ks", tmp_path / "c")
    assert str(tmp_path) in str(caught.value)


def test_an_import_continues_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: Published
) -> None:
    published("vs100")
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


def test_extracted_and_imported_features_are_not_mixed(
    tmp_path: Path, published: Published
) -> None:
    published("ks")
    write_sample(tmp_path / "c")
    with pytest.raises(FingerprintMismatch, match=r"'sample' in the cache, 'audiomae\+videomae'"):
        import_avcil(tmp_path / "in", "ks", tmp_path / "c")


def test_features_can_be_imported_as_int8(tmp_path: Path, published: Published) -> None:
    visual, _ = published("ks")
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
    tmp_path: Path, missing: str, text: str, published: Published
) -> None:
    published("ks")
    (tmp_path / "in" / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(SourceMissing, match=text):
        import_avcil(tmp_path / "in", "ks", tmp_path / "c")


def test_features_of_other_clips_are_refused(
    tmp_path: Path, published: Published, save: Save
) -> None:
    published("ks")
    save(tmp_path / "in/all_classId_vid_dict.npy", {"train": {0: ["x"]}, "val": {}, "test": {}})
    with pytest.raises(SourceMissing, match="none of the 1 clips has features"):
        import_avcil(tmp_path / "in", "ks", tmp_path / "c")


@pytest.mark.parametrize("layout", ["ave", "ks"])
def test_an_import_holds_less_than_two_batches_of_the_source(
    tmp_path: Path, layout: str, save: Save
) -> None:
    """One batch is the clips of a shard as published, float32; 6 shards of 8 are imported."""
    ids = [f"clip-{i:03d}" for i in range(48)]
    shape = (8 * 32, 128)
    rng = np.random.default_rng(0)
    visual: Features = {clip: rng.normal(size=shape).astype(np.float32) for clip in ids}
    folder = tmp_path / "in"
    save(folder / "category_encode_dict.npy", CLASSES)
    save(folder / "all_classId_vid_dict.npy", {"train": {0: ids}, "val": {}, "test": {}})
    audio = {clip: array[0] for clip, array in visual.items()}
    save(folder / AUDIO[0], audio)
    if layout == "ave":
        save(folder / VISUAL[0], visual)
    else:
        save_h5(folder / VISUAL[2], visual)
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
