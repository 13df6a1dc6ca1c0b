"""Published dictionaries are read without running what is pickled in them."""

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avcil.cache.convert.safe_pickle import StoredArray, open_dictionary, read_dictionary
from avcil.cache.errors import DictionaryRefused

Save = Callable[..., None]


@pytest.mark.parametrize("protocol", [3, 4])
def test_a_dictionary_is_read_as_numpy_would(tmp_path: Path, protocol: int, save: Save) -> None:
    rng = np.random.default_rng(0)
    content = {
        "large": rng.normal(size=(40, 30)).astype(np.float32),
        "very large": rng.normal(size=(300, 100)),
        "fortran": np.asfortranarray(rng.normal(size=(30, 20))),
        "big-endian": np.arange(500, dtype=">i4"),
        "small": np.arange(3),
        "scalar": np.float64(0.5),
        "texts": {"train": {np.int64(3): ["a", "ä"]}},
        "tuple": (1, 2.5, None, True),
    }
    save(tmp_path / "d.npy", content, protocol)
    read = read_dictionary(tmp_path / "d.npy")
    assert list(read) == list(content)
    for name in ("large", "very large", "fortran", "big-endian", "small"):
        np.testing.assert_array_equal(read[name], content[name])
    assert (read["scalar"], read["tuple"]) == (0.5, (1, 2.5, None, True))
    assert read["texts"] == {"train": {3: ["a", "ä"]}}


@pytest.mark.parametrize("protocol", [3, 4])
def test_large_arrays_stay_in_the_file_until_asked_for(
    tmp_path: Path, protocol: int, save: Save
) -> None:
    content = {f"{i}": np.full((1000, 100), i, np.float32) for i in range(50)}
    save(tmp_path / "d.npy", content, protocol)
    tracemalloc.start()
    try:
        opened = open_dictionary(tmp_path / "d.npy")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 400_000  # one of the fifty arrays
    assert isinstance(opened["7"], StoredArray)
    np.testing.assert_array_equal(opened["7"].load(), content["7"])


class Malicious:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch executed",)


class Plain:
    pass


@pytest.mark.parametrize(
    "content", [{"a": Malicious()}, {"a": Plain()}, {"a": np.datetime64(1, "s")}]
)
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_code_in_a_dictionary_is_refused_and_not_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: dict[str, Any],
    protocol: int,
    save: Save,
) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "d.npy", content, protocol)
    with pytest.raises(
        DictionaryRefused, match=r"d.npy cannot be read safely: .*; if you trust the file"
    ):
        open_dictionary(tmp_path / "d.npy")
    assert os.listdir() == ["d.npy"]  # noqa: PTH208


def test_every_cut_of_a_dictionary_is_refused(tmp_path: Path, save: Save) -> None:
    save(tmp_path / "d.npy", {"a": np.arange(600), "b": ["x", 1]})
    content = (tmp_path / "d.npy").read_bytes()
    for length in range(0, len(content), 37):
        (tmp_path / "d.npy").write_bytes(content[:length])
        with pytest.raises(DictionaryRefused):
            open_dictionary(tmp_path / "d.npy")


def test_an_array_that_is_no_dictionary_is_refused(tmp_path: Path, save: Save) -> None:
    np.save(tmp_path / "a.npy", np.arange(3))
    with pytest.raises(DictionaryRefused, match="array of int64"):
        open_dictionary(tmp_path / "a.npy")
    save(tmp_path / "l.npy", ["a"])
    with pytest.raises(DictionaryRefused, match="a list, not a dictionary"):
        open_dictionary(tmp_path / "l.npy")
