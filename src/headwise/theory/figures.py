"""The figures of `headwise theory`. Lines show the map, and points show measurements."""

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from headwise.report.plots.drawing import (
    COLOURS,
    INK,
    MUTED,
    PAPER,
    WIDE_INCHES,
    Drawing,
    csv_text,
    finish,
)
from headwise.theory.checks import OUTCOMES, LayerPath, MapPoint, Phases

_REGIONS = ("#e4e6e9", "#8fc9b4", "#f0b48c")
"""The colours of no fusion, fusion and over-fusion."""


def map_figure(inside: Sequence[MapPoint], outside: Sequence[tuple[str, MapPoint]]) -> Drawing:
    """Draw predicted against simulated a' and b', in the stated range and outside it."""
    figure = Figure(figsize=(WIDE_INCHES, 3.3), layout="constrained")
    groups = [("stated range", inside, COLOURS[0])]
    for i, name in enumerate(dict.fromkeys(name for name, _ in outside)):
        group = [point for other, point in outside if other == name]
        groups.append((name, group, COLOURS[1 + i]))
    for i, symbol in enumerate(("a'", "b'")):
        axes = figure.add_subplot(1, 3, i + 1)
        diagonal(axes, -1.0 if i else 0.0, 1.0)
        for _, points, colour in reversed(groups):
            x = [point.simulated[:2][i] for point in points]
            y = [point.predicted[:2][i] for point in points]
            axes.plot(x, y, ".", color=colour, markersize=3)
        axes.set_xlabel(f"{symbol} simulated")
        axes.set_ylabel(f"{symbol} predicted")
    axes = figure.add_subplot(1, 3, 3)
    for i, (_, points, colour) in enumerate(groups):
        x = [point.layer.beta + 0.25 * (i - 2) for point in points]
        axes.plot(x, [100 * point.error for point in points], ".", color=colour, markersize=3)
    axes.axhline(2, color=INK, linewidth=0.8)
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.01)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("β")
    axes.set_ylabel("error in %")
    handles = [
        Line2D([], [], color=colour, marker=".", linestyle="", markersize=7, label=name)
        for name, _, colour in groups
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
    rows = [(name, *_numbers(point)) for name, points, _ in groups for point in points]
    return finish(
        figure,
        "map",
        "One layer: predicted and simulated",
        "Within-class and between-class cosines after one layer of attention: the map's prediction "
        "against random batches (equal on the diagonal); and the errors, with a line at 2 %. Both "
        "in the stated range and outside it.",
        csv_text(_MAP_COLUMNS, rows),
    )


def phase_figure(diagrams: Sequence[Phases], layers: int) -> Drawing:
    """Draw the regions of the map and random batches by β and noise, for each n and K."""
    figure = Figure(figsize=(WIDE_INCHES, 5.6), layout="constrained")
    columns = (len(diagrams) + 1) // 2
    for i, diagram in enumerate(diagrams):
        axes = figure.add_subplot(2, columns, i + 1)
        _draw_phases(axes, diagram)
        if i % columns == 0:
            axes.set_ylabel("noise 1 − a")
        if i >= columns:
            axes.set_xlabel("β")
    handles: list[Artist] = [
        Patch(color=colour, label=name) for colour, name in zip(_REGIONS, OUTCOMES, strict=True)
    ]
    label = "simulated (orange ring: another outcome)"
    handles.append(
        Line2D([], [], label=label, marker="o", linestyle="", color=PAPER, markeredgecolor=INK)
    )
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    rows = [row for diagram in diagrams for row in _phase_rows(diagram)]
    return finish(
        figure,
        "phases",
        f"The outcome after {layers} layers",
        "Regions of no fusion, fusion and over-fusion by inverse temperature and noise, for "
        "several numbers of tokens per class and of classes. Points are random batches.",
        csv_text(("classes", "per_class", "beta", "noise", "predicted", "simulated"), rows),
    )


def _draw_phases(axes: Axes, diagram: Phases) -> None:
    regions, colours = (
        (diagram.betas, diagram.noises, diagram.outcomes),
        ListedColormap(list(_REGIONS)),
    )
    axes.pcolormesh(*regions, cmap=colours, vmin=0, vmax=2, rasterized=True)
    for point in diagram.points:
        edge, width = (INK, 0.8) if point.simulated == point.predicted else (COLOURS[1], 2)
        colour = _REGIONS[OUTCOMES.index(point.simulated)]
        (ring,) = axes.plot(point.beta, point.noise, "o", color=colour)
        ring.set(markeredgecolor=edge, markeredgewidth=width)
    axes.grid(False)
    axes.set_title(f"K = {diagram.batch.classes:g}, n = {diagram.batch.per_class:g}", fontsize=8.5)


def path_figure(paths: Sequence[LayerPath]) -> Drawing:
    """Draw a and b over the layers."""
    figure = Figure(figsize=(WIDE_INCHES, 4.6), layout="constrained")
    rows = []
    for i, path in enumerate(paths):
        axes = figure.add_subplot(2, 2, i + 1)
        for column, colour in enumerate(COLOURS[:2]):
            axes.plot([cosines[:2][column] for cosines in path.predicted], color=colour)
            points = [cosines[:2][column] for cosines in path.simulated]
            axes.plot(points, "o", color=colour, markersize=3)
        axes.set_ylim(-0.2, 1.05)
        axes.set_title(f"{path.name} (β = {path.layer.beta:g})", fontsize=8.5)
        if i % 2 == 0:
            axes.set_ylabel("mean cosine")
        if i >= 2:
            axes.set_xlabel("layers")
        for layer, pair in enumerate(zip(path.predicted, path.simulated, strict=True)):
            predicted, simulated = pair
            rows.append((path.name, path.layer.beta, layer, *predicted[:2], *simulated[:2]))
    handles = [
        Line2D([], [], color=COLOURS[0], label="a, within a class"),
        Line2D([], [], color=COLOURS[1], label="b, between classes"),
        Line2D([], [], color=MUTED, marker="o", linestyle="", markersize=3, label="simulated"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    columns = ("case", "beta", "layer", "a_predicted", "b_predicted", "a_simulated", "b_simulated")
    return finish(
        figure,
        "paths",
        "Layer after layer",
        "Mean cosines within and between classes over the layers: predicted from the input of the "
        "first layer, and measured in one random batch.",
        csv_text(columns, rows),
    )


_MAP_COLUMNS = (
    "range", "beta", "residual", "classes", "per_class", "width", "a", "b",
    "a_predicted", "b_predicted", "a_simulated", "b_simulated", "error",
)  # fmt: skip


def _numbers(point: MapPoint) -> tuple[int | float, ...]:
    layer, batch = point.layer, point.batch
    where = (layer.beta, layer.residual, batch.classes, batch.per_class, batch.width)
    return (*where, *point.before[:2], *point.predicted[:2], *point.simulated[:2], point.error)


def _phase_rows(diagram: Phases) -> list[tuple[object, ...]]:
    """Return the fields of the map, which have no simulation, and then the random batches."""
    size = (diagram.batch.classes, diagram.batch.per_class)
    fields = [
        (*size, beta, noise, OUTCOMES[diagram.outcomes[i, j]], "")
        for i, noise in enumerate(diagram.noises)
        for j, beta in enumerate(diagram.betas)
    ]
    return [*fields, *((*size, *point) for point in diagram.points)]


def diagonal(axes: Axes, low: float, high: float) -> None:
    """Draw the line on which x equals y."""
    axes.plot((low, high), (low, high), color=MUTED, linewidth=0.8)
