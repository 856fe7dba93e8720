"""Rows of numbers or answers as CSV, Markdown or LaTeX."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, fields
from typing import Literal

from headwise.files import csv_line
from headwise.report.reading.long import Answer, Number

Form = Literal["csv", "markdown", "latex"]


def lines(rows: Iterable[Number | Answer], kind: type, form: Form) -> Iterator[str]:
    """The table of these rows, line by line."""
    return written([field.name for field in fields(kind)], map(astuple, rows), form)


def written(titles: Sequence[str], rows: Iterable[Sequence[object]], form: Form) -> Iterator[str]:
    """A table under these titles, line by line."""
    match form:
        case "csv":
            yield csv_line(titles)
            for row in rows:
                yield csv_line(row)
        case "markdown":
            yield f"| {' | '.join(_cells(titles))} |\n"
            yield f"|{' --- |' * len(titles)}\n"
            for row in rows:
                yield f"| {' | '.join(_cells(row))} |\n"
        case "latex":
            yield f"\\begin{{tabular}}{{{'l' * len(titles)}}}\n\\hline\n"
            yield f"{' & '.join(map(_latex, titles))} \\\\\n\\hline\n"
            for row in rows:
                yield f"{' & '.join(map(_latex, _cells(row, bar='|')))} \\\\\n"
            yield "\\hline\n\\end{tabular}\n"


def _cells(row: Sequence[object], bar: str = "\\|") -> list[str]:
    """For readers: numbers with four decimals, and nothing that breaks a table."""
    words = []
    for cell in row:
        text = f"{cell:.4f}" if isinstance(cell, float) else "" if cell is None else str(cell)
        words.append(text.replace("|", bar).replace("\n", " "))
    return words


_SIGNS = {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "−": "$-$",
    "±": "$\\pm$",
    "×": "$\\times$",
    "τ": "$\\tau$",
    "–": "--",
}


def _latex(text: str) -> str:
    return "".join(_SIGNS.get(sign, f"\\{sign}" if sign in "&%$#_{}" else sign) for sign in text)
