"""Tables as text: terminal, Markdown, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence

from avcil.incremental.report.rows import Benchmark, Row
from avcil.incremental.report.tables import Cell, Mark, Table

TERMINAL_WIDTH = 80
CSV_FIELDS = (
    "dataset", "encoder", "fingerprint", "random_weights", "tasks", "method", "modality", "head",
    "label", "mean_accuracy", "mean_accuracy_deviation", "average_forgetting",
    "average_forgetting_deviation", "seeds", "orders",
)  # fmt: skip


def terminal(tables: Iterable[Table], width: int = TERMINAL_WIDTH, color: bool = False) -> str:
    """Return tables drawn for a terminal of `width` columns; `color` adds its control codes."""
    from rich.console import Console

    page = io.StringIO()
    console = Console(file=page, width=width, force_terminal=color, highlight=False)
    for table in tables:
        console.print(_drawn(table))
        for note in table.notes:
            console.print(note, style="dim", markup=False)
        console.print()
    return page.getvalue()


def _drawn(table: Table) -> object:
    """Return a table of rich."""
    from rich import box
    from rich.table import Table as Drawing
    from rich.text import Text

    styles = {Mark.NONE: "", Mark.BEST: "bold", Mark.SECOND: "underline"}
    drawing = Drawing(
        title=Text(table.title, style="bold"), title_justify="left", box=box.SIMPLE_HEAD
    )
    for column in table.columns:
        drawing.add_column(
            Text(column.title), justify="right" if column.figure else "left", overflow="fold"
        )
    for row in table.rows:
        drawing.add_row(*(Text(cell.text, style=styles[cell.mark]) for cell in row))
    return drawing


def markdown(tables: Iterable[Table]) -> str:
    """Return tables in GitHub's Markdown; best in bold, second underlined."""
    return "\n".join(_markdown_table(table) for table in tables)


def _markdown_table(table: Table) -> str:
    lines = [f"### {_escape(table.title)}", ""]
    lines.append(_markdown_line([_escape(column.title) for column in table.columns]))
    lines.append(_markdown_line(["---:" if c.figure else ":---" for c in table.columns]))
    lines += [_markdown_line([_markdown_cell(cell) for cell in row]) for row in table.rows]
    lines += [f"\n{_escape(note)}" for note in table.notes]
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


def comma_separated(found: Iterable[Benchmark]) -> str:
    """Return one line a row, figures in per cent and unrounded, empty where there is none."""
    page = io.StringIO()
    writer = csv.DictWriter(page, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    for benchmark in found:
        writer.writerows(_csv_line(benchmark, row) for row in benchmark.rows)
    return page.getvalue()


def _csv_line(found: Benchmark, row: Row) -> dict[str, object]:
    cache = found.cache
    return {
        "dataset": cache.dataset,
        "encoder": cache.encoder,
        "fingerprint": cache.fingerprint,
        "random_weights": str(cache.random_weights).lower(),
        "tasks": len(found.sizes),
        "method": row.method,
        "modality": row.modality,
        "head": row.head,
        "label": row.label,
        "mean_accuracy": row.accuracy.mean,
        "mean_accuracy_deviation": row.accuracy.deviation,
        "average_forgetting": row.forgetting.mean,
        "average_forgetting_deviation": row.forgetting.deviation,
        "seeds": row.seeds,
        "orders": row.orders,
    }
