"""Data sets: lists and folders become clips, and what is wrong is named."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from avcil.cache.sources import leaks, shared_videos
from avcil.extract.datasets import DATASETS, Dataset, Where, describe, load_dataset
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


def test_every_data_set_says_what_it_is() -> None:
    known = [describe(name) for name in DATASETS]
    assert len(known) == 6
    assert all(each.about and each.seconds > 0 for each in known)


def test_test_clips_from_the_videos_of_training_clips_are_found(tmp_path: Path) -> None:
    rows = [("aaaaaaaaaaa_1", "train"), ("aaaaaaaaaaa_9", "test"), ("bbbbbbbbbbb_1", "test")]
    text = "path,label,split\n" + "".join(f"{clip},x,{split}\n" for clip, split in rows)
    manifest = replace(table(tmp_path, text), name="vs100").manifest()
    assert [manifest.ids[row] for row in leaks(manifest).nonzero()[0]] == ["aaaaaaaaaaa_9"]
    shown = "1 of 2 test clips are cut from videos that training clips are cut from"
    assert shared_videos(manifest) == shown
    assert shared_videos(table(tmp_path, text).manifest()) == "", "ids of one's own tell no video"


def test_a_data_set_of_another_package_is_a_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_clips_for_avcil.py").write_text(
        "from avcil.extract.datasets import Clip, Dataset\n"
        "def load(where):\n"
        '    """Clips of mine."""\n'
        "    clip = Clip('a', where.data / 'a.mp4', 'dog', 'train')\n"
        "    return Dataset(name='mine', classes=('dog',), clips=(clip,))\n"
        "def wrong(where):\n"
        "    return [1]\n"
    )
    where = Where(data=tmp_path)
    assert describe("my_clips_for_avcil:load").about == "Clips of mine"
    assert load_dataset("my_clips_for_avcil:load", where).clips[0].path == tmp_path / "a.mp4"
    with pytest.raises(DatasetError, match=r"'my_clips_for_avcil:wrong' gave a list instead of"):
        load_dataset("my_clips_for_avcil:wrong", where)
