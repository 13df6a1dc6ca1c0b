"""Read lists and tables written by editors and spreadsheets."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path

from avcil.extract.errors import DatasetError

DELIMITERS = ",;\t|"
BYTE_ORDER_MARKS = {  # UTF-32 first: its mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, or in the encoding that its byte order mark names.

    Other encodings are not guessed: a wrong guess would give wrong names without an error.

    Raises:
        DatasetError: the file cannot be read, or is in another encoding.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    marks = (name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark))
    try:
        text = content.decode(next(marks, "utf-8"))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DatasetError(
            f"{path} is not UTF-8 text (line {line}: {error.reason}): save it as UTF-8, which "
            "Excel calls CSV UTF-8"
        ) from error
    if "\0" in text:
        raise DatasetError(f"{path} is not UTF-8 text, but perhaps UTF-16: save it as UTF-8")
    return text


def read_rows(path: Path, fits: Callable[[list[str]], bool]) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and fields of each row of a table, without blanks around the fields.

    Blank rows are skipped, and so is Excel's line `sep=;`.

    Args:
        path: the table.
        fits: whether its first row is divided as expected; the first delimiter that fits is used.

    Raises:
        DatasetError: the table cannot be read.
    """
    text = read_text(path)
    for delimiter in DELIMITERS:
        try:
            if fits(next(_rows(path, text, delimiter), (0, []))[1]):
                break
        except DatasetError:  # with another delimiter, quotes may stand elsewhere
            continue
    else:
        delimiter = ","
    yield from _rows(path, text, delimiter)


def _rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            fields = [field.strip() for field in row]
            first_of_excel = reader.line_num == 1 and fields and fields[0].startswith("sep=")
            if any(fields) and not first_of_excel:
                yield reader.line_num, fields
    except csv.Error as error:
        raise DatasetError(
            f"{path}:{reader.line_num}: {error}; is a quotation mark not closed?"
        ) from error
