"""Names that people and programs write in several ways: read as meant, or named."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from avcil.extract.datasets import Clip, Dataset, Where, load_dataset
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


def shown(dataset: Dataset) -> set[tuple[str, str, str]]:
    return {(clip.id, clip.split, clip.label) for clip in dataset.clips}


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
    with pytest.raises(DatasetError, match=r"'ave' has its splits"):
        load_dataset("ave", Where(data=tmp_path, split_names={"dev": "val"}))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["training/dog/a.mp4", "testing/dog/b.mp4"], r"testing looks like a split.*--split-names"),
        (["dev_set/dog/a.mp4", "Train2017/dog/b.mp4"], r"looks like a split.*--split-names"),
        (["clips/train/dog/a.mp4"], r"clips.train looks like a split in a class.*with --videos"),
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
        "2 in 'more', which is no split (see --split-names) ('more/dog/5.mp4')",
        "1 ending in '.me' ('READ.me')",
        "1 in no folder of a class ('train/4.mp4')",
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
    for other in ("./a/1.mp4", "a//1.mp4", "a/../a/1.mp4", f"{tmp_path}/a/1.mp4", "link.mp4"):
        with pytest.raises(DatasetError, match=r"1 files of data set 'mine' are several clips"):
            table(tmp_path, f"path,label,split\na/1.mp4,x,train\n{other},x,test\n")


def test_a_tables_file_is_found_in_another_form_of_unicode(tmp_path: Path) -> None:
    touch(tmp_path, f"{NFD}/1.mp4", "dog/2.mp4")
    clips = table(tmp_path, f"path,label,split\n{NFC}/1.mp4,x,train\ndog\\2.mp4,x,test\n").clips
    assert [clip.path.exists() for clip in clips] == [True, True]


ROWS = "path,label,split\na.mp4,caf\xe9,train\nb.mp4,日本,test\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_tables_of_spreadsheets_are_read(
    tmp_path: Path, encoding: str, delimiter: str, end: str
) -> None:
    text = ROWS.replace(",", delimiter).replace("\n", end)
    expected = {("a.mp4", "train", "caf\xe9"), ("b.mp4", "test", "日本")}
    assert shown(table(tmp_path, text.encode(encoding))) == expected


def test_what_excel_adds_is_passed_over(tmp_path: Path) -> None:
    text = "sep=;\r\nPath;LABEL; Split ;note\r\na.mp4;x, y;train;;;\r\n;;;\r\n"
    assert shown(table(tmp_path, text)) == {("a.mp4", "train", "x, y")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ROWS.split("b.mp4")[0].encode("latin-1"), r"csv is not UTF-8 text \(line 2: .*save it as"),
        (ROWS.encode("utf-16-le"), r"csv is not UTF-8 text.*save it as UTF-8"),
        ("path,label,split\na.mp4,日本,train\n".encode("shift-jis"), r"not UTF-8 text \(line 2"),
        (b"path,label,split\na.mp4,donkey, ass,train\n", r"csv:2: 4 fields, but the heading has 3"),
        (b'path,label,split\na.mp4,"x,train\nb.mp4,x,test\n', r"csv:3: .*mark not closed"),
        (b"path;label\n", r"has no column path, label, split: its first line is 'path;label'"),
        (b"", r"has no column path, label, split: its first line is ''"),
    ],
)
def test_a_table_that_cannot_be_read_is_named_in_one_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        table(tmp_path, content)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "dog/1.mp4", "dog/" + os.fsdecode(b"caf\xe9.mp4"))
    with pytest.raises(DatasetError, match=r"no printable name: rename it"):
        folder(tmp_path)


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
    assert f"{name} could be aaaaaaaaaaa; if so, rename such files to <video>" in printed


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
