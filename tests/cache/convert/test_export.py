"""Export: other programs read the clips that have tokens, and no file is overwritten."""

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from avcil.cache.convert.export import FORMATS, Format, export
from avcil.cache.errors import CacheUnwritable
from avcil.cache.reader import FeatureStore
from avcil.cache.samples import FAILED


def read_back(path: Path, to: Format) -> dict[str, NDArray[Any]]:
    if to == "h5":
        with h5py.File(path) as file:
            return {name: data[()] for name, data in file.items()}
    if to == "npz":
        with np.load(path) as file:
            return dict(file)
    return dict(load_file(path))


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("split", [None, "val"])
def test_an_export_holds_the_clips_that_have_tokens(
    store: FeatureStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    to: Format,
    split: Any,
) -> None:
    monkeypatch.setattr("avcil.cache.convert.export.BLOCK_BYTES", 5000)  # several blocks
    rows = export(store, tmp_path / "out", to, split=split)
    assert rows.tolist() == store.rows(split).tolist()
    assert FAILED not in rows
    clips, file = store.load(rows), read_back(tmp_path / "out", to)
    np.testing.assert_array_equal(file["visual"], clips.visual)
    np.testing.assert_array_equal(file["audio"], clips.audio)
    np.testing.assert_array_equal(file["visual_length"], clips.visual_lengths)
    np.testing.assert_array_equal(file["label"], clips.labels)
    ids = [bytes(text).rstrip(b"\0").decode() for text in file["id"]]
    assert ids == [store.manifest.ids[row] for row in rows]
    assert os.listdir(tmp_path) == ["out"]  # noqa: PTH208


def test_an_export_never_overwrites(store: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("thesis")
    with pytest.raises(CacheUnwritable, match="already exists"):
        export(store, tmp_path / "out", "npz")
    assert (tmp_path / "out").read_text() == "thesis"
