"""Tables for people: terminal and Markdown."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from avcil.incremental.report.tables.table import Cell, Mark, Table

if TYPE_CHECKING:
    from rich.console import RenderableType

PLAIN_WIDTH = 80
LEAST_NAME = 16
"""Least width of a column of names, in characters."""
FILL = "To fill the empty cells:"


def terminal(tables: Iterable[Table], screen: int | None = None) -> str:
    """Return tables drawn in characters.

    Args:
        tables: what to draw.
        screen: columns of a terminal that shows bold and underlined; None for plain text.
    """
    from rich.console import Console

    page = io.StringIO()
    console = Console(
        file=page, width=screen or PLAIN_WIDTH, force_terminal=bool(screen), highlight=False
    )
    said: set[str] = set()
    for table in tables:
        for part in _fitting(table, screen) if screen else [table]:
            console.width = max(screen or PLAIN_WIDTH, _least_width(part))
            console.print(_drawn(part))
        console.width = screen or PLAIN_WIDTH
        for note in _new(table.notes, said):
            console.print(note, style="dim", markup=False)
        if table.commands:
            console.print(FILL)
        for command in table.commands:
            console.print(f"  {command}", style="cyan", markup=False, soft_wrap=True)
        console.print()
    return page.getvalue()


def _fitting(table: Table, screen: int) -> list[Table]:
    """Split a table that is wider than the screen; every part starts with the first column."""
    parts: list[list[int]] = [[0]]
    for column in range(1, len(table.columns)):
        wider = _of_columns(table, [*parts[-1], column])
        if len(parts[-1]) > 1 and _least_width(wider) > screen:
            parts.append([0])
        parts[-1].append(column)
    return [_of_columns(table, part) for part in parts]


def _of_columns(table: Table, places: Sequence[int]) -> Table:
    rows = [[row[place] for place in places] for row in table.rows]
    return replace(table, columns=[table.columns[place] for place in places], rows=rows)


def _least_width(table: Table) -> int:
    """Return the width below which columns would be cut: figures stay whole, names may wrap."""
    widths = [_longest(table, place) for place in range(len(table.columns))]
    return sum(
        2 + (width if column.figure else min(LEAST_NAME, width))
        for column, width in zip(table.columns, widths, strict=True)
    )


def _longest(table: Table, place: int) -> int:
    from rich.cells import cell_len

    column = table.columns[place]
    return max(map(cell_len, [column.title, column.group, *(r[place].text for r in table.rows)]))


def _new(notes: Iterable[str], said: set[str]) -> list[str]:
    """Return the notes that no earlier table said, and remember them."""
    fresh = [note for note in notes if note not in said]
    said.update(fresh)
    return fresh


def _drawn(table: Table) -> RenderableType:
    """Return a table of rich. Figures never break over two lines; names may."""
    from rich import box
    from rich.console import Group
    from rich.table import Table as Drawing
    from rich.text import Text

    styles = {Mark.NONE: "", Mark.BEST: "bold", Mark.SECOND: "underline"}
    drawing = Drawing(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in table.columns:
        heading = f"{column.group}\n{column.title}" if column.group else column.title
        figure = column.figure
        least = None if figure else min(LEAST_NAME, _longest(table, len(drawing.columns)))
        drawing.add_column(
            Text(heading),
            justify="right" if figure else "left",
            no_wrap=figure,
            min_width=least,
        )
    for row in table.rows:
        drawing.add_row(*(Text(cell.text, style=styles[cell.mark]) for cell in row))
    return Group(Text(table.title, style="bold"), drawing)


def markdown(tables: Iterable[Table]) -> str:
    """Return tables in GitHub's Markdown; best in bold, second underlined."""
    said: set[str] = set()
    return "\n".join(_markdown_table(table, _new(table.notes, said)) for table in tables)


def _markdown_table(table: Table, notes: Iterable[str]) -> str:
    lines = [f"### {_escape(table.title)}", ""]
    lines.append(_markdown_line([_escape(column.heading) for column in table.columns]))
    lines.append(_markdown_line(["---:" if c.figure else ":---" for c in table.columns]))
    lines += [_markdown_line([_markdown_cell(cell) for cell in row]) for row in table.rows]
    lines += [f"\n{_escape(note)}" for note in notes]
    if table.commands:
        lines += ["", FILL, "", "```sh", *table.commands, "```"]
    return "\n".join(lines) + "\n"


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(cell: Cell) -> str:
    marks: dict[Mark, Callable[[str], str]] = {
        Mark.NONE: str,
        Mark.BEST: "**{}**".format,
        Mark.SECOND: "<u>{}</u>".format,
    }
    return marks[cell.mark](_escape(cell.text))


def _escape(text: str) -> str:
    """Keep Markdown from reading a name as markup."""
    for sign in "\\|*_<>[]":
        text = text.replace(sign, f"\\{sign}")
    return text
