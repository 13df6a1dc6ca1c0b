"""Tables as spreadsheets write them: read, or refused in one line that says where."""

from __future__ import annotations

from pathlib import Path

import pytest

from avcil.extract.datasets import Dataset, Where, load_dataset
from avcil.extract.errors import DatasetError


def table(root: Path, content: str | bytes) -> Dataset:
    path = root / "mine.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_dataset("csv", Where(data=root, splits=path))


def shown(dataset: Dataset) -> set[tuple[str, str, str]]:
    return {(clip.id, clip.split, clip.label) for clip in dataset.clips}


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
