"""Tables as LaTeX: a document with booktabs that compiles as it is; the tables can be cut out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import count, groupby

from avcil.incremental.report.tables.table import Cell, Column, Mark, Table

PREAMBLE = r"""\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage[margin=2cm]{geometry}
\usepackage{booktabs}
\setlength{\belowcaptionskip}{6pt}
\setlength{\tabcolsep}{4pt}
\setlength{\parindent}{0pt}
\begin{document}
"""
SIGNS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "±": r"$\pm$", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip
MINUS = re.compile(r"(?<![\w.])-(?=\d)")
"""A hyphen before a figure."""


def document(tables: Iterable[Table]) -> str:
    """Return a whole document, one floating table after the other."""
    return PREAMBLE + "\n".join(map(_float, tables, count(1))) + "\\end{document}\n"


def _float(table: Table, number: int) -> str:
    layout = "".join("r" if column.figure else "l" for column in table.columns)
    rows = [_line([_cell(cell) for cell in row]) for row in table.rows]
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering\small",
            rf"\caption{{{escape(table.title)}.}}",
            rf"\label{{tab:{table.name}-{number}}}",
            rf"\begin{{tabular}}{{{layout}}}",
            r"\toprule",
            *_headings(table.columns),
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            "",
            r"\smallskip",
            r"\begin{minipage}{\linewidth}\footnotesize",
            *(escape(note) + r"\par" for note in table.notes),
            r"\end{minipage}",
            *(f"% to fill an empty cell: {command}" for command in table.commands),
            r"\end{table}",
            "",
        ]
    )


def _headings(columns: Sequence[Column]) -> list[str]:
    """Return the line of titles, below a line of groups with rules where there are groups."""
    titles = _line([escape(column.title) for column in columns])
    if not any(column.group for column in columns):
        return [titles]
    groups, rules, first = [], [], 1
    for name, members in groupby(columns, key=lambda column: column.group):
        width = len(list(members))
        groups.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(name)}}}")
        if name:
            rules.append(rf"\cmidrule(lr){{{first}-{first + width - 1}}}")
        first += width
    return [_line(groups), "".join(rules), titles]


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(cell: Cell) -> str:
    text = MINUS.sub("$-$", escape(cell.text))
    if cell.mark is Mark.BEST:
        return rf"\textbf{{{text}}}"
    return rf"\underline{{{text}}}" if cell.mark is Mark.SECOND else text


def escape(text: str) -> str:
    """Keep LaTeX from reading a name as a command."""
    return "".join(SIGNS.get(sign, sign) for sign in text)
