"""Data sets: lists and folders become clips, and what is wrong is named."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avcil.commands.datasets import datasets as show_datasets
from avcil.extract.datasets import DATASETS, Dataset, Where, load_dataset
from avcil.extract.datasets.published import kinetics_id, shared_sources, vggsound_id
from avcil.extract.errors import DatasetError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def folder(root: Path) -> Dataset:
    return load_dataset("folder", Where(data=root, videos=root))


def table(root: Path, text: str) -> Dataset:
    (root / "mine.csv").write_text(text, encoding="utf-8")
    return load_dataset("csv", Where(data=root, splits=root / "mine.csv"))


def test_an_unknown_data_set_is_refused_and_the_known_are_listed() -> None:
    with pytest.raises(DatasetError, match=r"unknown data set 'kinetics'; choose one of demo, ave"):
        load_dataset("kinetics", Where(data=Path("data")))


def test_a_folder_of_splits_is_read_as_it_stands(tmp_path: Path) -> None:
    names = [
        "train/dog bark/a.mp4",
        "train/Ärger/-b.webm",
        "val/dog bark/c.MKV",
        "test/Ärger/d.avi",
    ]
    dataset = folder(touch(tmp_path / "my clips", *names, "train/dog bark/notes.txt"))
    assert dataset.name == "my-clips"
    assert dataset.classes == ("dog bark", "Ärger")
    assert {clip.id: clip.split for clip in dataset.clips} == {
        name: name.split("/")[0] for name in names
    }
    assert len(dataset.manifest()) == 4


def test_a_folder_of_classes_is_split_by_the_names_of_its_files(tmp_path: Path) -> None:
    names = [f"{label}/{number}.mp4" for label in ("cat", "dog") for number in range(20)]
    dataset = folder(touch(tmp_path, *names))
    counts = Counter((clip.label, clip.split) for clip in dataset.clips)
    for label in ("cat", "dog"):
        assert [counts[label, split] for split in ("train", "val", "test")] == [16, 2, 2]
    assert folder(tmp_path) == dataset


def test_a_folder_without_clips_says_how_it_should_look(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"has no clips: expected DIR/<split>/<class>"):
        folder(tmp_path)
    with pytest.raises(DatasetError, match=r"give one with --videos"):
        folder(tmp_path / "none")


def test_a_table_gives_clips_relative_to_itself(tmp_path: Path) -> None:
    dataset = table(tmp_path, 'path,label,split\n"a, b.mp4",cat,train\nc.mp4,dog,test\n')
    assert [clip.path for clip in dataset.clips] == [tmp_path / "a, b.mp4", tmp_path / "c.mp4"]
    assert dataset.classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.mp4,cat\n", r"has no column split"),
        ("path,label,split\na.mp4,cat,train\nb.mp4,cat,dev\n", r"csv:3: unknown split 'dev'"),
        ("path,label,split\n,cat,train\n", r"csv:2: path and label must not be empty"),
        ("path,label,split\na,x,train\na,y,test\n", r"'a' in train/x, test/y"),
        ("path,label,split\n", r"has no clips"),
    ],
)
def test_a_wrong_table_is_refused_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        table(tmp_path, text)


def dictionaries(root: Path, classes: dict[str, int], clips: dict[str, dict[str, str]]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {"category_encode_dict": classes, "all_id_category_dict": clips}
    for name, value in content.items():
        np.save(root / f"{name}.npy", np.array(value, dtype=object), allow_pickle=True)
    return root


def test_a_benchmarks_dictionaries_give_its_class_order_and_find_its_files(tmp_path: Path) -> None:
    clips = {
        "train": {"-abcdefghij_000030": "dog"},
        "val": {"bbbbbbbbbbb_000001": "cat"},
        "test": {},
    }
    splits = dictionaries(tmp_path / "vs100" / "splits", {"dog": 0, "cat": 1}, clips)
    touch(tmp_path / "vs100" / "videos", "-abcdefghij_30.mp4")
    dataset = load_dataset("vs100", Where(data=tmp_path))
    assert dataset.classes == ("dog", "cat")
    found, missing = dataset.clips
    assert found.path.name == "-abcdefghij_30.mp4"
    assert missing.path == tmp_path / "vs100" / "videos" / "bbbbbbbbbbb_000001.mp4"
    assert splits.is_dir()


def test_a_benchmark_that_is_not_on_disk_says_which_files_and_where_from(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"category_encode_dict\.npy.*github\.com.*--splits"):
        load_dataset("ks", Where(data=tmp_path))
    dictionaries(tmp_path / "ks" / "splits", {"x": 0}, {"train": {"a": "x"}, "val": {}, "test": {}})
    with pytest.raises(DatasetError, match=r"no clips of 'ks'.*kinetics-dataset.*--videos"):
        load_dataset("ks", Where(data=tmp_path))


def test_aves_own_lists_are_read(tmp_path: Path) -> None:
    splits = touch(tmp_path / "ave" / "splits")
    splits.mkdir(parents=True)
    (splits / "trainSet.txt").write_text("Church bell&RUhOCu3LNXM&good&0&10\n\n")
    (splits / "valSet.txt").write_text("Bark&-aaaaaaaaaa&good&0&10\n")
    (splits / "testSet.txt").write_text("Bark&bbbbbbbbbbb&good&2&7\n")
    touch(tmp_path / "ave" / "videos", "RUhOCu3LNXM.mp4")
    dataset = load_dataset("ave", Where(data=tmp_path))
    assert dataset.classes == ("Bark", "Church bell")
    assert [clip.split for clip in dataset.clips] == ["train", "val", "test"]
    (splits / "valSet.txt").write_text("Bark;-aaaaaaaaaa\n")
    with pytest.raises(DatasetError, match=r"valSet\.txt:1: expected class&id"):
        load_dataset("ave", Where(data=tmp_path))


def test_file_names_become_the_ids_of_the_lists() -> None:
    assert (
        vggsound_id("-abcdefghij_30") == vggsound_id("-abcdefghij_000030") == "-abcdefghij_000030"
    )
    assert kinetics_id("abc_defghij_000001_000011") == kinetics_id("abc_defghij") == "abc_defghij"


def test_every_data_set_says_what_it_is() -> None:
    assert all(known.about and known.seconds > 0 for known in DATASETS.values())


def test_test_clips_from_the_videos_of_training_clips_are_found(tmp_path: Path) -> None:
    rows = [("aaaaaaaaaaa_1", "train"), ("aaaaaaaaaaa_9", "test"), ("bbbbbbbbbbb_1", "test")]
    text = "path,label,split\n" + "".join(f"{clip},x,{split}\n" for clip, split in rows)
    assert shared_sources(table(tmp_path, text)) == ["aaaaaaaaaaa_9"]


def test_the_command_counts_what_is_on_disk_and_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = {"train": {"a": "dog", "b": "cat"}, "val": {}, "test": {"c": "dog"}}
    dictionaries(tmp_path / "ave" / "splits", {"dog": 0, "cat": 1}, clips)
    touch(tmp_path / "ave" / "videos", "a.mp4")
    show_datasets(data=tmp_path)
    printed = capsys.readouterr().out
    assert "on disk: 1 of 2 train, 0 of 1 test" in printed
    assert "1 of 2 classes have no clip: cat" in printed
    assert "no lists of 'vs100'" in printed


@pytest.mark.skipif("AVCIL_TEST_SPLITS" not in os.environ, reason="needs the published lists")
@pytest.mark.parametrize(
    ("name", "folder", "classes", "train", "val", "test", "shared"),
    [
        ("ave", "AVE", 28, 3294, 391, 394, 0),
        ("ks", "kinetics-sounds", 30, 19220, 1947, 1958, 0),
        ("vs100", "VGGSound_100", 100, 51195, 5000, 5000, 1627),
    ],
)
def test_the_published_lists_have_the_published_counts(
    tmp_path: Path,
    name: str,
    folder: str,
    classes: int,
    train: int,
    val: int,
    test: int,
    shared: int,
) -> None:
    splits = Path(os.environ["AVCIL_TEST_SPLITS"]) / folder
    dataset = load_dataset(name, Where(data=tmp_path, videos=tmp_path, splits=splits))
    counts = Counter(clip.split for clip in dataset.clips)
    assert len(dataset.classes) == classes
    assert (counts["train"], counts["val"], counts["test"]) == (train, val, test)
    assert len(shared_sources(dataset)) == shared
