"""One table with two forms: text for the terminal, and HTML by `data_table` in macros.html."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

WIDTH = 80
"""Columns of a terminal. A table is wider only where a number would be cut."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number, or one word."""

    text: str = ""
    spread: str = ""
    """What follows ±; empty if no error is known."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """The heading of a column."""

    title: str
    """On the page, neighbours with one title and different taps share one heading."""
    tap: str = ""
    """Stands below a shared heading."""
    short: str = ""
    """The heading in a terminal; empty: the title."""
    anchor: str = ""
    """Its entry among the page's definitions; empty: none."""


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A label and a cell for each column."""

    label: str
    cells: Sequence[Cell]
    short: str = ""
    """The label in a terminal; empty: the label."""
    anchor: str = ""
    """Its entry among the page's definitions; empty: none."""
    kind: Literal["", "head", "baseline"] = ""
    """How the page sets the row."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells."""

    corner: str
    """The heading of the labels."""
    columns: Sequence[Column]
    rows: Sequence[TableRow]

    @property
    def headings(self) -> list[tuple[Column, list[str]]]:
        """Columns by shared heading: the first column, and the taps below it."""
        groups = [list(group) for _, group in groupby(self.columns, key=lambda c: c.title)]
        return [(group[0], [column.tap for column in group]) for group in groups]

    @property
    def spread(self) -> bool:
        """Whether a ± stands in it, whose meaning must then stand beside it."""
        return any(cell.spread for row in self.rows for cell in row.cells)

    @property
    def grouped(self) -> bool:
        """Whether there are taps below the headings."""
        return any(column.tap for column in self.columns)

    def text(self) -> str:
        """Plain text at most 80 columns wide: numbers and errors stand in line."""
        grid = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        grid.add_column(Text(self.corner), overflow="fold")
        columns = []
        for i, column in enumerate(self.columns):
            heading, *cells = aligned(column.short or column.title, [r.cells[i] for r in self.rows])
            grid.add_column(Text(heading), no_wrap=True)
            columns.append(cells)
        for row, *cells in zip(self.rows, *columns, strict=True):
            grid.add_row(Text(row.short or row.label), *map(Text, cells))
        out = io.StringIO()
        console = Console(file=out, width=WIDTH, color_system=None, highlight=False)
        least = console.measure(grid).minimum
        console.print(grid, width=max(WIDTH, least) if least > WIDTH else None)
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def aligned(heading: str, cells: Sequence[Cell]) -> list[str]:
    """A column as texts of one width: the heading, then number and ± error of each cell."""
    spread = max((len(cell.spread) for cell in cells), default=0)
    texts = [heading]
    for cell in cells:
        error = f" ±{cell.spread.rjust(spread)}" if cell.spread else " " * (spread + 2)
        texts.append(cell.text + (error if spread else ""))
    width = max(map(len, texts))
    return [text.rjust(width) for text in texts]
