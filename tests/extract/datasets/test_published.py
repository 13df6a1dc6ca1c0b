"""The published benchmarks: their lists in every form, and their files under every name."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from avcil.benchmarks.cards import cards
from avcil.cache.sources import leaks
from avcil.cli import app
from avcil.commands.datasets import datasets as show_datasets
from avcil.extract.datasets import Dataset, Where, load_dataset
from avcil.extract.datasets.published import file_key
from avcil.extract.errors import DatasetError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


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


def kinetics(root: Path, listed: str, *files: str) -> Dataset:
    clips = {"train": {listed: "x"}, "val": {}, "test": {}}
    dictionaries(root / "ks" / "splits", {"x": 0}, clips)
    touch(root / "ks" / "videos", *files)
    return load_dataset("ks", Where(data=root))


@pytest.mark.parametrize(
    ("listed", "files", "found"),
    [
        ("-bcdefghij_", ["train/x/-bcdefghij__000005_000015.mp4"], 0),
        ("abcdefghijk_000005_000015", ["abcdefghijk.mp4"], 0),
        ("abcdefghijk_000005_000015", ["a/abcdefghijk.mp4", "abcdefghijk_000005_000015.mp4"], 1),
        ("abcdefghijk", ["a/abcdefghijk_000005_000015.mp4", "abcdefghijk.mp4"], 1),
        ("abcdefghijk", ["a/abcdefghijk.mp4", "b/abcdefghijk.mp4"], 0),
        ("abcdefghijk_000005_000015", ["abcdefghijk_000030_000040.mp4"], None),
    ],
)
def test_a_kinetics_clip_is_found_by_its_name_with_or_without_its_seconds(
    tmp_path: Path, listed: str, files: list[str], found: int | None
) -> None:
    (clip,) = kinetics(tmp_path, listed, *files).clips
    name = f"{listed}.mp4" if found is None else files[found]
    assert clip.id == listed
    assert clip.path == tmp_path / "ks" / "videos" / name
    assert clip.path.exists() == (found is not None)


def test_a_kinetics_clip_that_could_be_two_files_is_refused(tmp_path: Path) -> None:
    files = ["abcdefghijk_000005_000015.mp4", "abcdefghijk_000030_000040.mp4"]
    with pytest.raises(DatasetError, match=r"several files could be clip 'abcdefghijk'.*keep one"):
        kinetics(tmp_path, "abcdefghijk", *files)


def vggsound(root: Path, rows: str, classes: str = "dog barking\ndonkey, ass braying\n") -> Dataset:
    splits = touch(root / "vs100" / "splits", "vggsound.csv", "classes.txt")
    (splits / "vggsound.csv").write_text(rows, encoding="utf-8")
    (splits / "classes.txt").write_text(classes, encoding="utf-8")
    (root / "vs100" / "videos").mkdir(exist_ok=True)
    return load_dataset("vs100", Where(data=root))


def test_vggsounds_table_gives_the_clips_of_the_listed_classes_in_their_order(
    tmp_path: Path,
) -> None:
    touch(tmp_path / "vs100" / "videos", "-bbbbbbbbbb_7.mp4")
    dataset = vggsound(
        tmp_path,
        "# YouTube ID, start seconds, label, train/test split\n"
        'aaaaaaaaaaa,30,"donkey, ass braying",train\n'
        "-bbbbbbbbbb,7,dog barking,test\n"
        "ccccccccccc,0,people marching,test\n",
    )
    assert dataset.classes == ("dog barking", "donkey, ass braying")
    assert [(clip.id, clip.label, clip.split) for clip in dataset.clips] == [
        ("aaaaaaaaaaa_000030", "donkey, ass braying", "train"),
        ("-bbbbbbbbbb_000007", "dog barking", "test"),
    ]
    assert dataset.clips[1].path.name == "-bbbbbbbbbb_7.mp4"


def test_a_table_without_validation_clips_gives_a_tenth_of_training_by_whole_videos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        f"{video:011d},{start},{label},train\n"
        for label, videos in (("dog", range(20)), ("cat", range(20, 520)))
        for video in videos
        for start in (0, 10)
    ]
    both = "dog\ncat\n"
    dataset = vggsound(tmp_path, "".join(rows), both)
    counts = Counter((clip.label, clip.split) for clip in dataset.clips)
    assert counts == {
        ("dog", "val"): 4, ("dog", "train"): 36, ("cat", "val"): 50, ("cat", "train"): 950,
    }  # fmt: skip
    sides = {split: {clip.id[:11] for clip in dataset.clips if clip.split == split}
             for split in ("train", "val")}  # fmt: skip
    assert not sides["train"] & sides["val"]
    assert "54 training clips, chosen by name" in capsys.readouterr().err
    assert set(vggsound(tmp_path, "".join(reversed(rows)), both).clips) == set(dataset.clips)


def test_a_table_with_validation_clips_is_read_as_it_stands(tmp_path: Path) -> None:
    rows = [f"{number:011d},0,dog,{'val' if number == 3 else 'train'}\n" for number in range(30)]
    dataset = vggsound(tmp_path, "".join(rows), "dog\n")
    assert [clip.id for clip in dataset.clips if clip.split == "val"] == ["00000000003_000000"]


@pytest.mark.parametrize(
    ("rows", "classes", "message"),
    [
        ("aaaaaaaaaaa,1.5,dog,train\n", "dog", r"csv:1: expected YouTube id, start in whole sec"),
        ("aaaaaaaaaaa,1,dog,train\nb,2,dog\n", "dog", r"csv:2: expected .*, not 'b,2,dog'"),
        ("aaaaaaaaaaa,1,dog,dev\n", "dog", r"csv:1: .*split \(train, val, test\)"),
        ("aaaaaaaaaaa,1,dog,train\n", "dog\nowl\n", r"names 1 classes that .* have: 'owl'"),
        ("aaaaaaaaaaa,1,dog,train\n", "dog\ncat\ndog\n", r"names 'dog' more than once"),
        ("aaaaaaaaaaa,1,dog,train\n", "\n", r"names nothing: expected every class once"),
        ("aaaaaaaaaaa,1,dog,train\naaaaaaaaaaa,01,dog,test\n", "dog", r"train/dog, test/dog"),
    ],
)
def test_a_wrong_table_of_vggsound_is_refused_with_the_place(
    tmp_path: Path, rows: str, classes: str, message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        vggsound(tmp_path, rows, classes)


def test_the_dictionaries_come_before_the_table(tmp_path: Path) -> None:
    clips = {"train": {"aaaaaaaaaaa_000001": "dog"}, "val": {}, "test": {}}
    dictionaries(tmp_path / "vs100" / "splits", {"dog": 0}, clips)
    assert len(vggsound(tmp_path, "bbbbbbbbbbb,1,cat,train\n", "cat\n").clips) == 1


def test_a_clip_of_ave_with_several_events_is_one_clip_by_its_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = touch(tmp_path / "splits", "trainSet.txt", "valSet.txt", "testSet.txt")
    (splits / "trainSet.txt").write_text("Bus&a&good&0&3\nBus&a&good&5&9\nCat&a&good&0&10\n")
    (splits / "testSet.txt").write_text("Bus&a&good&0&10\nCat&b&good&0&10\n")
    dataset = load_dataset("ave", Where(data=tmp_path, splits=splits, videos=tmp_path))
    found = [(clip.id, clip.label, clip.split) for clip in dataset.clips]
    assert found == [("a", "Bus", "train"), ("b", "Cat", "test")]
    printed = capsys.readouterr().err
    assert "2 lines of" in printed
    assert "a (train, Cat), a (test, Bus)" in printed


def test_file_names_become_the_ids_of_the_lists() -> None:
    vggsound, kinetics = cards()["vs100"], cards()["ks"]
    for name in ("-abcdefghij_30", "-abcdefghij_000030"):
        assert file_key(vggsound, name) == ("-abcdefghij", (30,))
    for name in ("abc_defghij_000001_000011", "abc_defghij_1_11"):
        assert file_key(kinetics, name) == ("abc_defghij", (1, 11))
    assert file_key(kinetics, "abc_defghij") == ("abc_defghij", ())


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
    assert leaks(dataset.manifest()).sum() == shared


def test_extraction_says_at_its_start_how_many_test_clips_share_a_video_with_training(
    tmp_path: Path,
) -> None:
    clips = {
        "train": {"aaaaaaaaaaa_000001": "dog"}, "val": {}, "test": {"aaaaaaaaaaa_000011": "dog"},
    }  # fmt: skip
    dictionaries(tmp_path / "vs100" / "splits", {"dog": 0}, clips)
    (tmp_path / "vs100" / "videos").mkdir()
    options = ["--dataset", "vs100", "--encoder", "tiny", "--data", str(tmp_path)]
    shown = CliRunner().invoke(app, ["extract", *options, "--device", "cpu"]).stderr
    assert "1 of 1 test clips are cut from videos that training clips are cut from" in shown
