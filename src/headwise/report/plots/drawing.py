"""How a figure looks, and how it leaves: SVG for the page; SVG, PNG and, of some, CSV for files.

Figures are about 105 mm wide, so that their words stay legible on a phone and two stand side by
side on a desktop. Colours are Okabe & Ito's, which the colour-blind can tell apart.
"""

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from headwise import files

# Okabe & Ito, "Color Universal Design" (2008), without the black and the yellow, which vanish on
# a dark or a white page; a grey stands in.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A8A8A")
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))

# Colours that the page replaces by its own, which follow light and dark mode.
INK, MUTED, RULE, PAPER = "#1d2125", "#6a7178", "#d8dbdf", "#fffffe"
_ON_PAGE = {INK: "currentColor", MUTED: "var(--muted)", RULE: "var(--rule)", PAPER: "none"}

STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": PAPER,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "lines.linewidth": 1.5,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "none",  # Letters stay letters: small, searchable, read aloud.
    "text.color": INK,
    "text.parse_math": False,  # A class may be called "$5".
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}
WIDTH_INCHES = 4.15
WIDE_INCHES = 8.6
"""Of figures that take the width of the page."""


@dataclass(frozen=True)
class Look:
    """How a line is drawn and what it is called."""

    label: str
    colour: str = INK
    dashes: Any = "-"
    marker: str = ""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One figure with its words."""

    name: str
    """File stem."""
    title: str
    description: str
    """What is to be seen, for those who do not see it."""
    svg: str
    """As a file of its own."""
    png: bytes
    table: str = ""
    """What is drawn, as CSV; empty where another file has the numbers."""

    @property
    def inline(self) -> str:
        """The SVG for inside a page: identifiers unique to this figure, colours from the page."""
        opening, _, svg = self.svg[self.svg.index("<svg") :].partition(">")
        box = opening[opening.index("viewBox=") :]  # without width and height: the page sets them
        before, _, rest = svg.partition("<metadata>")
        svg = f"<svg {box}>" + before + rest.partition("</metadata>")[2]
        for reference in (' id="', '"#', "url(#"):
            svg = svg.replace(reference, reference + self.name + "-")
        for colour, variable in _ON_PAGE.items():
            svg = svg.replace(colour, variable)
        return svg


def new_axes(height_inches: float) -> tuple[Figure, Axes]:
    """A figure of the house's width with one pair of axes. Call within `style()`."""
    figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
    return figure, figure.add_subplot()


def style() -> Any:
    """Matplotlib's settings for our figures, within a `with` block."""
    return matplotlib.rc_context(STYLE)


def csv_text(columns: Iterable[str | int], rows: Iterable[Iterable[Any]]) -> str:
    """A header and rows, floats to six digits, NaN as an empty field."""
    return files.csv_text(columns, ([_field(value) for value in row] for row in rows))


def finish(figure: Figure, name: str, title: str, description: str, table: str = "") -> Drawing:
    """Render, with no date and no random identifiers: equal figures give equal bytes."""
    FigureCanvasAgg(figure)
    name = "".join(letter if letter.isalnum() or letter in "_-" else "-" for letter in name)
    svg, png = io.StringIO(), io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "headwise"}):
        figure.savefig(svg, format="svg", metadata={"Date": None})
    figure.savefig(png, format="png", dpi=200, metadata={"Software": None})
    return Drawing(
        name=name,
        title=title,
        description=description,
        svg=svg.getvalue(),
        png=png.getvalue(),
        table=table,
    )


def _field(value: Any) -> Any:
    if not isinstance(value, float | np.floating):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"
