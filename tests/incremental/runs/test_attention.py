"""The clips whose frames are shown beside attention."""

from pathlib import Path

from avcil.incremental.runs.attention import find_videos


def test_attention_names_the_clips_that_lie_in_a_folder(tmp_path: Path) -> None:
    for name in ("a.mp4", "deep/-b_000030.mkv", "c.mp4"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).touch()
    found = find_videos(tmp_path / "videos", ["a", "-b_000030", "missing"])
    assert found == {
        "a": tmp_path / "videos/a.mp4",
        "-b_000030": tmp_path / "videos/deep/-b_000030.mkv",
    }
    assert find_videos(tmp_path / "elsewhere", ["a"]) == {}


def test_attention_finds_clips_whose_ids_are_paths_or_parts_of_names(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    for name in ("test/a dog/0.mp4", "train/a dog/0.mp4", "5/abcdefghijk_000010_000020.mp4",
                 "5/ABCDEFGHIJK_7.mp4"):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (tmp_path / "secret.mp4").touch()
    ids = ["test/a dog/0.mp4", "train/a dog/0", "abcdefghijk", "ABCDEFGHIJK_000007"]
    odd = ["../secret.mp4", str(tmp_path / "secret.mp4"), "", ".", "a\0b", "x" * 5000]
    assert find_videos(tmp_path / "videos", [*ids, *odd]) == {
        "test/a dog/0.mp4": root / "test/a dog/0.mp4",
        "train/a dog/0": root / "train/a dog/0.mp4",
        "abcdefghijk": root / "5/abcdefghijk_000010_000020.mp4",
        "ABCDEFGHIJK_000007": root / "5/ABCDEFGHIJK_7.mp4",
    }
