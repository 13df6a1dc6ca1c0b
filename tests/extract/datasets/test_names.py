"""Names that people and programs write in several ways: read as meant, or named."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from avcil.extract.datasets import Dataset, Where, load_dataset
from avcil.extract.datasets.names import split_names
from avcil.extract.errors import DatasetError

NFC, NFD = (unicodedata.normalize(form, "caf\xe9") for form in ("NFC", "NFD"))


def touch(root: Path, *names: str, content: bytes = b"") -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def folder(root: Path, **names: str) -> Dataset:
    given = split_names(",".join(f"{split}={name}" for split, name in names.items()))
    return load_dataset("folder", Where(data=root, videos=root, split_names=given))


def table(root: Path, content: str | bytes, **names: str) -> Dataset:
    path = root / "mine.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    given = split_names(",".join(f"{split}={name}" for split, name in names.items()))
    return load_dataset("csv", Where(data=root, splits=path, split_names=given))


@pytest.mark.parametrize("train", ["train", "Train", "TRAIN"])
@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_splits_are_read_by_their_usual_names(tmp_path: Path, train: str, val: str) -> None:
    dataset = folder(touch(tmp_path, f"{train}/dog/a.mp4", f"{val}/dog/b.mp4", "Test/dog/c.mp4"))
    assert [(clip.split, clip.path.name) for clip in dataset.clips] == [
        ("train", "a.mp4"), ("val", "b.mp4"), ("test", "c.mp4"),
    ]  # fmt: skip
    rows = f"path,label,split\na,x,{train}\nb,x,{val}\nc,x, Test \n"
    assert [clip.split for clip in table(tmp_path, rows).clips] == ["train", "val", "test"]


def test_other_names_of_splits_can_be_given(tmp_path: Path) -> None:
    touch(tmp_path, "Lernen/dog/a.mp4", "Prüfung/dog/b.mp4")
    dataset = folder(tmp_path, train="lernen", test="PRÜFUNG")
    assert [clip.split for clip in dataset.clips] == ["train", "test"]
    assert table(tmp_path, "path,label,split\na,x,dev\n", val="dev").clips[0].split == "val"
    with pytest.raises(DatasetError, match=r"given as train=NAME.*, not 'dev=val'"):
        split_names("dev=val")
    with pytest.raises(DatasetError, match=r"'ave' has published splits"):
        load_dataset("ave", Where(data=tmp_path, split_names={"dev": "val"}))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["training/dog/a.mp4", "testing/dog/b.mp4"], r"testing looks like a split.*--split-names"),
        (["dev_set/dog/a.mp4", "Train2017/dog/b.mp4"], r"looks like a split.*--split-names"),
        (["clips/train/dog/a.mp4"], r"clips.train looks like a split in a class.*with --videos"),
        (["train/a.mp4"], r"splits train in .* have no folders of classes"),
        (["train/a.mp4", "test/b.mp4"], r"splits test, train in .* have no folders of classes"),
    ],
)
def test_a_layout_that_would_turn_splits_into_classes_is_refused(
    tmp_path: Path, names: list[str], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        folder(touch(tmp_path, *names))


def test_folders_in_a_class_are_read_and_files_left_out_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = ["train/dog/1.MTS", "train/dog/day 1/am/2.mp4", "test/dog/3.mp4"]
    left = ["train/4.mp4", "more/dog/5.mp4", "more/dog/6.mp4", "train/dog/._1.mp4", "READ.me"]
    touch(tmp_path, *kept, *left, "train/.DS_Store", "train/dog/7.mp4.part")
    assert {clip.id for clip in folder(tmp_path).clips} == set(kept)
    assert capsys.readouterr().err.split(": ", 1)[1].split("; ") == [
        "2 in 'more', which is not a split (see --split-names) ('more/dog/5.mp4')",
        "1 ending in '.me' ('READ.me')",
        "1 not in a class folder ('train/4.mp4')",
        "1 hidden ('train/dog/._1.mp4')",
        "1 ending in '.part' ('train/dog/7.mp4.part')\n",
    ]


def test_linked_folders_are_read_once_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path / "disk", "day/1.mp4", "day/2.mp4")
    root = touch(tmp_path / "clips", "dog/3.mp4")
    (root / "dog" / "a").symlink_to(tmp_path / "disk" / "day")
    (root / "dog" / "b").symlink_to(tmp_path / "disk" / "day")
    (root / "dog" / "loop").symlink_to(root)
    (tmp_path / "disk" / "day" / "loop").symlink_to(tmp_path / "disk")
    (root / "dog" / "none").symlink_to(tmp_path / "nowhere")
    (root / "dog" / "4.mp4").symlink_to(tmp_path / "nowhere.mp4")
    found = {clip.id for clip in folder(root).clips}
    assert found == {"dog/a/1.mp4", "dog/a/2.mp4", "dog/3.mp4", "dog/4.mp4"}


def test_one_folder_linked_into_two_splits_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "disk", "1.mp4")
    for split in ("train", "test"):
        (tmp_path / "clips" / split).mkdir(parents=True)
        (tmp_path / "clips" / split / "dog").symlink_to(tmp_path / "disk")
    with pytest.raises(DatasetError, match=r"1\.mp4 is 'train/dog/1\.mp4' in train/dog, 'test/dog"):
        folder(tmp_path / "clips")


def test_one_class_in_two_forms_of_unicode_is_one_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path / "clips", f"train/{NFC}/1.mp4", f"test/{NFD}/2.mp4", "test/tea /3.mp4")
    touch(tmp_path / "clips", "train/tea/4.mp4")
    assert folder(tmp_path / "clips").classes == (NFC, "tea")
    assert r"'caf\xe9' and 'cafe\u0301'" in capsys.readouterr().err.replace("\n", "")
    text = f"path,label,split\n1,{NFC},train\n2,{NFD} ,test\n3, tea,test\n4,tea,test\n"
    assert table(tmp_path, text).classes == (NFC, "tea")


@pytest.mark.parametrize(
    "others", [("Dog", "dog"), ("ice cream", "ice_cream"), ("\uff44og", "dog")]
)
def test_classes_that_hardly_differ_are_named_and_kept_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], others: tuple[str, str]
) -> None:
    text = "path,label,split\n" + "".join(f"{name},{name},train\n" for name in others)
    assert set(table(tmp_path, text).classes) == set(others)
    printed = capsys.readouterr().err
    assert "classes kept apart" in printed
    assert all(ascii(name) in printed for name in others)


def test_one_file_under_two_names_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.mp4")
    (tmp_path / "link.mp4").symlink_to("a/1.mp4")
    (tmp_path / "hard.mp4").hardlink_to(tmp_path / "a" / "1.mp4")
    paths = ("./a/1.mp4", "a//1.mp4", "a/../a/1.mp4", f"{tmp_path}/a/1.mp4", "link.mp4", "hard.mp4")
    for other in paths:
        with pytest.raises(DatasetError, match=r"1 files of data set 'mine' are several clips"):
            table(tmp_path, f"path,label,split\na/1.mp4,x,train\n{other},x,test\n")


def test_a_tables_file_is_found_in_another_form_of_unicode(tmp_path: Path) -> None:
    touch(tmp_path, f"{NFD}/1.mp4", "dog/2.mp4")
    clips = table(tmp_path, f"path,label,split\n{NFC}/1.mp4,x,train\ndog\\2.mp4,x,test\n").clips
    assert [clip.path.exists() for clip in clips] == [True, True]


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "dog/1.mp4", "dog/" + os.fsdecode(b"caf\xe9.mp4"))
    with pytest.raises(DatasetError, match=r"not a printable name: rename it"):
        folder(tmp_path)
