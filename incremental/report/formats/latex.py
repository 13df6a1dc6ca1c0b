"""Tables as LaTeX: a document that compiles as it is; the tables can be cut out.

It needs booktabs and graphicx: tables that are wider than the text are shrunk to it.

It compiles with every engine and needs no fonts: letters that LaTeX's own fonts lack, as of other
scripts, are transliterated to ASCII. Comments in the source say what stands for what.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import count, groupby

from anyascii import anyascii

from avcil.incremental.report.tables.table import Cell, Column, Mark, Table

PREAMBLE = r"""\documentclass{article}
\usepackage[margin=2cm]{geometry}
\usepackage{booktabs}
\usepackage{graphicx}
\setlength{\belowcaptionskip}{6pt}
\setlength{\tabcolsep}{4pt}
\setlength{\parindent}{0pt}
\begin{document}
"""
SIGNS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "±": r"$\pm$", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "[": "{[}", "]": "{]}", "\u2013": "--", "\u2014": "---", "…": r"\dots{}",
    "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ø": r"\o{}",
    "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}", "\u0131": r"\i{}", "\n": " ",
}  # fmt: skip
MINUS = re.compile(r"(?<![\w.])-(?=\d)")
"""A hyphen before a figure."""
ACCENTS = {
    "\u0300": r"\`", "\u0301": r"\'", "\u0302": r"\^", "\u0303": r"\~", "\u0304": r"\=",
    "\u0306": r"\u", "\u0307": r"\.", "\u0308": r'\"', "\u030a": r"\r", "\u030b": r"\H",
    "\u030c": r"\v", "\u0327": r"\c",
}  # fmt: skip
"""Combining marks, and the command that sets one on a letter."""


def document(tables: Iterable[Table]) -> str:
    """Return a whole document, one floating table after the other."""
    tables = list(tables)
    body = "\n".join(map(_float, tables, count(1)))
    return f"{_transliterated(tables)}{PREAMBLE}{body}\\end{{document}}\n"


def _transliterated(tables: Iterable[Table]) -> str:
    """Return comments that say which words were transliterated, and what was written."""
    cells = (cell.text for table in tables for row in table.rows for cell in row)
    titles = (text for table in tables for text in (table.title, *table.notes))
    words = dict.fromkeys(word for text in (*titles, *cells) for word in text.split())
    changed = {word: "".join(map(_ascii, word)) for word in words if not word.isascii()}
    return "".join(
        f"% {shown} is transliterated: {word}\n" for word, shown in changed.items() if shown != word
    )


FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
"""Opens a box that is shrunk to the width of the text if it is wider."""


def _float(table: Table, number: int) -> str:
    layout = "".join("r" if column.figure else "l" for column in table.columns)
    rows = [_line([_cell(cell) for cell in row]) for row in table.rows]
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering\small",
            rf"\caption{{{escape(table.title)}.}}",
            rf"\label{{tab:{table.name}-{number}}}",
            FIT,
            rf"\begin{{tabular}}{{{layout}}}",
            r"\toprule",
            *_headings(table.columns),
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}}",
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
    """Keep LaTeX from reading a name as a command; transliterate what its fonts lack."""
    return "".join(_typeset(sign) for sign in unicodedata.normalize("NFC", text))


def _typeset(sign: str) -> str:
    """Return how LaTeX sets a character."""
    if sign in SIGNS or " " <= sign <= "~":
        return SIGNS.get(sign, sign)
    if _takes_accent(sign):
        letter, mark = list(unicodedata.normalize("NFD", sign))
        return f"{ACCENTS[mark]}{{{letter}}}"
    return "".join(SIGNS.get(each, each) for each in _ascii(sign))


def _takes_accent(sign: str) -> bool:
    """Tell whether a character is a letter of ASCII with one accent."""
    parts = unicodedata.normalize("NFD", sign)
    return len(parts) == 2 and parts[0].isascii() and parts[0].isalpha() and parts[1] in ACCENTS


def _ascii(sign: str) -> str:
    """Return a character if LaTeX's fonts have it, else its letters in ASCII or its code point."""
    if sign in SIGNS or sign.isascii() or _takes_accent(sign):
        return sign
    return anyascii(sign) or (f"U+{ord(sign):04X}" if sign.isprintable() else "")
