"""The figures of a comparison, apart from the map of h."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from headwise.report.plots.drawing import COLOURS, DASHES, INK, MUTED, Drawing, finish, new_axes
from headwise.report.reading.comparison import ComparedRun, Comparison
from headwise.report.reading.summary import Summary

BINS = 60
"""Points of a training curve at most; each is the mean of the steps it stands for."""
FLOOR = 1e-7
"""Singular values below this share of the largest are rounding: float32 has 2⁻²⁴ ≈ 6e-8."""

LineStyle = tuple[str, Any]
"""Colour and dashes, as matplotlib has them."""

_BASELINES = (
    ("pixels", "raw pixels", ":"),
    ("untrained", "untrained", "--"),
    ("start", "start weights", (0, (5, 1, 1, 1, 1, 1))),
    ("scratch", "from scratch", "-."),
)
# Letters that fit below a heat map.
_WRITTEN_ACROSS = 48
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _in_lines(arm: str) -> str:
    """The name of an arm with a line for each of its settings."""
    return arm.replace(":", ":\n", 1).replace(",", ",\n")


def accuracy_bars(summary: Summary, probe: str, title: str) -> Drawing:
    """Bars of h and z for every head, and the baselines as vertical lines."""
    heads = list(summary.heads)
    labels = [_in_lines(head) for head in heads]
    lines = 1 + max(label.count("\n") for label in labels)
    figure, axes = new_axes(1.15 + max(0.42, 0.15 * lines) * len(heads))
    edge = axes.get_yaxis_transform()  # x from 0 to 1 across the axes: numbers in one column
    for tap, colour, offset in (("h", COLOURS[0], -0.19), ("z", COLOURS[4], 0.19)):
        for name, found in summary.head_scores(f"{probe}/{tap}").items():
            y, x = heads.index(name) + offset, 100 * found.value
            axes.barh(y, x, 0.36, color=colour, label=tap if name == heads[0] else None)
            if found.plus_minus:
                axes.errorbar(x, y, xerr=100 * found.plus_minus, color=INK, elinewidth=0.8)
            axes.text(1, y, f"{x:.1f}", transform=edge, ha="right", va="center", fontsize=7.5)
    axes.set_yticks(range(len(heads)), labels)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("% correct")
    baselines = _baseline_lines(axes, summary, f"{probe}/h")
    axes.set_xlim(0, axes.get_xlim()[1] * 1.1)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    handles = [
        Line2D([], [], color=COLOURS[0], linewidth=6, label="h"),
        Line2D([], [], color=COLOURS[4], linewidth=6, label="z"),
        *baselines,
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, columnspacing=1.1)
    described = (
        f"{title} of h and z by {summary.noun}, with baselines; the numbers are in the first table."
    )
    return finish(figure, f"accuracy-{probe}", title, described)


def curves(comparison: Comparison, key: str, title: str) -> Drawing | None:
    """One measure over the course of pretraining: a line a run, colour and dashes by head."""
    figure, axes = new_axes(2.9)
    drawn = []
    for run in comparison.runs:
        points = _curve(run, key)
        if len(points):
            colour, dashes = head_style(comparison.summary, run.head)
            first = run.head not in drawn
            axes.plot(*points.T, color=colour, linestyle=dashes, alpha=1 if first else 0.35)
            drawn.append(run.head)
    if not drawn:
        return None
    axes.set_xlabel("images seen")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_ylabel(title.lower())
    noun = comparison.summary.noun
    line_legend(figure, {head: head_style(comparison.summary, head) for head in drawn})
    return finish(
        figure,
        key.replace("_", "-"),
        title,
        f"{title} against images seen, a line for each {noun}.",
    )


def spectra(comparison: Comparison, tap: str, title: str) -> Drawing | None:
    """Singular values over the largest, on a logarithmic axis, for the first seed of each head."""
    values = {run.head: run.arrays.get(f"spectrum/rank/{tap}") for run in comparison.first_runs()}
    styles = {head: head_style(comparison.summary, head) for head in values}
    noun = comparison.summary.noun
    described = f"Normalised singular values of the covariance of {tap}, a line for each {noun}."
    figure = spectrum_figure(values, styles)
    return None if figure is None else finish(figure, f"spectrum-{tap}", title, described)


def spectrum_figure(
    spectra: dict[str, np.ndarray | None], styles: dict[str, LineStyle]
) -> Figure | None:
    """A line for each spectrum that is there and not all zero, over its largest value."""
    known = {
        name: values
        for name, values in spectra.items()
        if values is not None and values.size and values[0] > 0
    }
    if not known:
        return None
    figure, axes = new_axes(2.9)
    for name, values in known.items():
        share = values / values[0]
        colour, dashes = styles[name]
        shown = np.where(share >= FLOOR, share, np.nan)
        axes.plot(np.arange(1, len(share) + 1), shown, color=colour, linestyle=dashes)
    axes.set_yscale("log")
    axes.set_ylim(bottom=max(FLOOR, min(axes.get_ylim()[0], 1e-2)), top=1.6)
    axes.yaxis.set_major_formatter(FuncFormatter(power_of_ten))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    axes.set_xlabel("index")
    axes.set_ylabel("singular value ÷ largest")
    line_legend(figure, {name: styles[name] for name in known})
    return figure


def factor_heatmap(summary: Summary, tap: str, title: str) -> Drawing | None:
    """How well each factor can be read from h or z: factors down, heads across, 0 to 1."""
    by_head = {head: taps[tap] for head, taps in summary.factors.items() if taps.get(tap)}
    if not by_head:
        return None
    factors = list(dict.fromkeys(name for values in by_head.values() for name in values))
    grid = np.array([[values.get(name, np.nan) for values in by_head.values()] for name in factors])
    described = (
        f"How well each factor can be read from {tap}: a column for each {summary.noun}, 0 to 1."
    )
    return finish(heatmap(grid, factors, list(by_head)), f"factors-{tap}", title, described)


def heatmap(grid: np.ndarray, rows: list[str], columns: list[str]) -> Figure:
    """Numbers from 0 to 1 in fields coloured by them; a dash where one is NaN."""
    crowded, written = len(columns) > 6, sum(map(len, columns))
    turned = crowded or written > _WRITTEN_ACROSS
    height = max(0.9, 0.3 + 0.075 * max(map(len, columns)))
    figure, axes = new_axes((height if turned else 0.6) + 0.26 * len(rows))
    texts = [["–" if np.isnan(value) else f"{value:.2f}" for value in row] for row in grid]
    if crowded:  # .27 for 0.27
        texts = [[text.removeprefix("0") for text in row] for row in texts]
    fields(axes, grid, texts, (0.0, 1.0), size=6.5 if crowded else None)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(columns)), columns, rotation=90 if turned else 0)
    return figure


def fields(
    axes: Axes,
    grid: np.ndarray,
    texts: list[list[str]],
    ends: tuple[float, float],
    *,
    size: float | None = None,
    left: float = 0.0,
) -> None:
    """Fields coloured by their numbers, from the darkest to the lightest of `ends`, with texts in
    them, the first at x = `left`. NaN has no colour."""
    (low, high), (rows, columns) = ends, grid.shape
    extent = (left - 0.5, left + columns - 0.5, rows - 0.5, -0.5)
    axes.imshow(grid, cmap="cividis", vmin=low, vmax=high, aspect="auto", extent=extent)
    for (row, column), value in np.ndenumerate(grid):
        ink = "#ffffff" if value < low + 0.55 * (high - low) else "#000000"
        style = {"color": ink, "fontsize": size, "ha": "center", "va": "center"}
        axes.text(left + column, row, texts[row][column], **style)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)


def head_style(summary: Summary, head: str) -> LineStyle:
    """A head's colour and dashes: the same in every figure."""
    return line_style(list(summary.heads).index(head))


def line_style(place: int) -> LineStyle:
    return COLOURS[place % len(COLOURS)], DASHES[place % len(DASHES)]


def line_legend(figure: Figure, styles: dict[str, LineStyle]) -> None:
    """Below the axes, in as many columns as fit; a single one makes the figure higher."""
    handles = [
        Line2D([], [], color=colour, linestyle=dashes, label=name)
        for name, (colour, dashes) in styles.items()
    ]
    longest = max(map(len, styles))
    columns = 3 if longest < 14 else 2 if longest < 24 else 1
    if columns == 1:
        figure.set_figheight(figure.get_figheight() + 0.17 * len(handles))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def _baseline_lines(axes: Axes, summary: Summary, key: str) -> list[Line2D]:
    lines = []
    for name, label, dashes in _BASELINES:
        score = summary.score("baselines", name, key)
        if score is not None:
            x = 100 * score.value
            lines.append(axes.axvline(x, color=INK, linestyle=dashes, linewidth=1, label=label))
    if summary.chance is not None:
        x = 100 * summary.chance
        lines.append(axes.axvline(x, color=MUTED, linewidth=1, label="chance"))
    return lines


def _curve(run: ComparedRun, key: str) -> np.ndarray:
    """Rows of (images seen, mean of `key`), at most `BINS` of them."""
    rows = [
        (line["images_seen"], line[key])
        for line in run.metrics
        if "images_seen" in line and key in line
    ]
    parts = np.array_split(np.array(rows, dtype=float), min(BINS, len(rows))) if rows else []
    return np.array([part.mean(0) for part in parts])


def power_of_ten(value: float, _: int = 0) -> str:
    """The nearest one, as a tick's label."""
    return "1" if value == 1 else "10" + str(round(np.log10(value))).translate(_SUPERSCRIPTS)
