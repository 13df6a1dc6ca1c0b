"""Benchmarks' lists and files as they are found: headings, blanks, other names, empty files."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from avcil.extract.datasets import Clip, Dataset, Where, load_dataset
from avcil.extract.errors import DatasetError

NFC, NFD = (unicodedata.normalize(form, "caf\xe9") for form in ("NFC", "NFD"))


def touch(root: Path, *names: str, content: bytes = b"") -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def shown(dataset: Dataset) -> set[tuple[str, str, str]]:
    return {(clip.id, clip.split, clip.label) for clip in dataset.clips}


def ave(root: Path, train: str, test: str, *files: str) -> Dataset:
    touch(root / "splits", "valSet.txt")
    (root / "splits" / "trainSet.txt").write_text(train)
    (root / "splits" / "testSet.txt").write_text(test)
    (root / "videos").mkdir(exist_ok=True)
    touch(root / "videos", *files, content=b"x")
    return load_dataset("ave", Where(data=root, splits=root / "splits", videos=root / "videos"))


def test_aves_lists_may_have_a_heading_and_blanks(tmp_path: Path) -> None:
    heading = "Category&VideoID&Quality&StartTime&EndTime\r\n"
    dataset = ave(
        tmp_path, f"{heading}Truck &aaaaaaaaaaa&good&0&10\r\n", f"{heading}Truck& b &good&0&9\r\n"
    )
    assert shown(dataset) == {("aaaaaaaaaaa", "train", "Truck"), ("b", "test", "Truck")}


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["a/aaaaaaaaaaa.mp4"], "aaaaaaaaaaa.mp4"),
        (["aaaaaaaaaaa.webm"], "aaaaaaaaaaa.webm"),
        (["._aaaaaaaaaaa.mp4"], None),
    ],
)
def test_an_empty_file_or_one_of_the_finder_does_not_hide_a_clip(
    tmp_path: Path, files: list[str], found: str | None
) -> None:
    touch(tmp_path / "videos", "aaaaaaaaaaa.avi")
    (tmp_path / "videos" / "aaaaaaaaaaa.m4v").symlink_to("nowhere")
    (clip,) = ave(tmp_path, "Bus&aaaaaaaaaaa&good&0&10\n", "", *files).clips
    assert clip.path.name == (found or "aaaaaaaaaaa.avi")


def test_benchmarks_are_found_through_linked_folders(tmp_path: Path) -> None:
    touch(tmp_path / "disk", "aaaaaaaaaaa.mp4", content=b"x")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "part1").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "loop").symlink_to(tmp_path / "videos")
    (clip,) = ave(tmp_path, "Bus&aaaaaaaaaaa&good&0&10\n", "").clips
    assert clip.path.is_file()


@pytest.mark.parametrize(
    "name", ["aaaaaaaaaaa_5000_15000.mp4", "Bus [aaaaaaaaaaa].webm", "Yaaaaaaaaaaa.mkv"]
)
def test_files_under_another_usual_name_are_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    ave(tmp_path, "Bus&aaaaaaaaaaa&good&0&10\nBus&bbbbbbbbbbb&good&0&10\n", "", name)
    printed = capsys.readouterr().err
    assert "1 clips of 'ave' have no file" in printed
    assert f"{name} could be aaaaaaaaaaa; if so, rename them to <video>" in printed


def test_other_parts_of_a_video_are_not_pointed_out_and_milliseconds_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = {"train": {"aaaaaaaaaaa_000005_000015": "x"}, "val": {}, "test": {}}
    for name, value in (("category_encode", {"x": 0}), ("all_id_category", clips)):
        (tmp_path / "ks" / "splits").mkdir(parents=True, exist_ok=True)
        array = np.array(value, dtype=object)
        np.save(tmp_path / "ks" / "splits" / f"{name}_dict.npy", array, allow_pickle=True)
    touch(tmp_path / "ks" / "videos", "aaaaaaaaaaa_000030_000040.mp4")
    load_dataset("ks", Where(data=tmp_path))
    assert capsys.readouterr().err == ""
    touch(tmp_path / "ks" / "videos", "aaaaaaaaaaa_5000_15000.mp4")
    load_dataset("ks", Where(data=tmp_path))
    assert "aaaaaaaaaaa_5000_15000.mp4 could be" in capsys.readouterr().err
    touch(tmp_path / "ks" / "videos", "aaaaaaaaaaa_5_15.mp4")
    (clip,) = load_dataset("ks", Where(data=tmp_path)).clips
    assert clip.path.name == "aaaaaaaaaaa_5_15.mp4"


def test_an_empty_name_of_a_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"'' of data set 'ave' is not a printable name"):
        ave(tmp_path, " &aaaaaaaaaaa&good&0&10\n", "")


def test_two_clips_that_only_one_file_could_be_are_refused(tmp_path: Path) -> None:
    rows = {f"aaaaaaaaaaa_0000{start}_000099": "x" for start in ("05", "30")}
    splits = tmp_path / "ks" / "splits"
    splits.mkdir(parents=True)
    for name, value in (
        ("category_encode", {"x": 0}),
        ("all_id_category", {"train": rows, "val": {}, "test": {}}),
    ):
        np.save(splits / f"{name}_dict.npy", np.array(value, dtype=object), allow_pickle=True)
    touch(tmp_path / "ks" / "videos", "aaaaaaaaaaa.mp4")
    with pytest.raises(DatasetError, match=r"aaaaaaaaaaa\.mp4 is 'aaaaaaaaaaa_000005_000099' in"):
        load_dataset("ks", Where(data=tmp_path))


def vggsound(root: Path, table: bytes, classes: str) -> list[Clip]:
    touch(root / "vs100" / "splits", "vggsound.csv", content=table)
    touch(root / "vs100" / "splits", "classes.txt", content=classes.encode())
    (root / "vs100" / "videos").mkdir(exist_ok=True)
    return list(load_dataset("vs100", Where(data=root)).clips)


@pytest.mark.parametrize(
    "heading", ["", "youtube_id,start,label,split\n", "# id, start, label, split\n\n"]
)
@pytest.mark.parametrize("classes", ['"dog, ""big"""\n', 'dog, "big"\n', '\ufeffdog, "big" \r\n'])
def test_vggsounds_table_may_have_a_heading_and_its_quotes_in_the_list_of_classes(
    tmp_path: Path, heading: str, classes: str
) -> None:
    row = 'aaaaaaaaaaa,30,"dog, ""big""",train\n'
    (clip,) = vggsound(tmp_path, (heading + row).encode(), classes)
    assert (clip.id, clip.label) == ("aaaaaaaaaaa_000030", 'dog, "big"')


def test_vggsounds_table_of_a_spreadsheet_is_read(tmp_path: Path) -> None:
    text = f"id;start;label;split\naaaaaaaaaaa;30;{NFD};Train\nbbbbbbbbbbb;1;{NFC};test\n"
    clips = vggsound(tmp_path, text.encode("utf-16"), NFC)
    assert [clip.label for clip in clips] == [NFC, NFC]


@pytest.mark.parametrize(
    ("table", "classes", "message"),
    [
        (b"aaaaaaaaaaa,1,dog,train\n#NAME?,30,dog,train\n", "dog", r"csv:2: expected YouTube id"),
        (b",id,start,label,split\n0,aaaaaaaaaaa,30,dog,train\n", "dog", r"csv:2: expected"),
        (b"aaaaaaaaaaa,1,dog bark,train\n", "Dog_Bark", r"'Dog_Bark' \(it has 'dog bark'\)"),
    ],
)
def test_what_a_spreadsheet_spoilt_is_named(
    tmp_path: Path, table: bytes, classes: str, message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        vggsound(tmp_path, table, classes)


def test_lists_of_which_one_is_missing_name_what_is_there(tmp_path: Path) -> None:
    touch(tmp_path / "vs100" / "splits", "vggsound.csv")
    with pytest.raises(DatasetError, match=r"found only vggsound\.csv: expected .*classes\.txt"):
        load_dataset("vs100", Where(data=tmp_path))
