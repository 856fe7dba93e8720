"""The figures of a study that are grids: two axes, a value in each field."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from headwise.report.plots.comparison import fields
from headwise.report.plots.drawing import WIDTH_INCHES
from headwise.report.reading.study_points import Shown
from headwise.report.tables.measures import measure_words
from headwise.report.tables.numbers import number_text

_WRITTEN_ACROSS = 44
"""Letters that fit below the axes."""
_GAP = 0.15
"""Before the means of rows, in fields."""


def crowded(names: Sequence[str]) -> bool:
    """Whether names do not fit beside each other below the axes."""
    return sum(map(len, names)) + 2 * len(names) > _WRITTEN_ACROSS


def heatmaps(found: Shown) -> Figure:
    """A panel for each measure with its values in the fields; then the paper's."""
    rows, columns = found.by, [*found.along, *(["mean"] if found.square else [])]
    grids = [
        (measure_words(measure), found.units[measure], _grid(found, measure))
        for measure in found.figure.measures
    ]
    if found.paper:
        paper = _grid(found, found.figure.measures[0], paper=True)
        grids.append((found.figure.paper_source, "", paper))
    turned = crowded(columns)
    names = 0.075 * max(map(len, columns)) if turned else 0.15
    height = len(grids) * (0.7 + names + 0.27 * len(rows))
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    panels = figure.subplots(len(grids), 1, squeeze=False)[:, 0]
    for axes, (title, unit, grid) in zip(panels, grids, strict=True):
        parts = [(0.0, grid)]
        if found.square:
            parts.append((len(found.along) + _GAP, grid.mean(1, keepdims=True)))
        known = grid[~np.isnan(grid)]
        ends = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
        for left, part in parts:
            texts = [[_field_text(unit, value) for value in row] for row in part]
            size = 7.0 if len(columns) > 6 else None
            fields(axes, part, texts, ends, size=size, left=left)
        places = [left + i for left, part in parts for i in range(part.shape[1])]
        axes.set_xlim(-0.5, places[-1] + 0.5)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xticks(places, columns, rotation=90 if turned else 0)
        axes.set(xlabel=found.figure.along, ylabel=found.figure.by)
        axes.set_title(f"{title}{', %' if unit == 'share' else ''}", fontsize=8.5)
    return figure


def _grid(found: Shown, measure: str, *, paper: bool = False) -> Float[np.ndarray, "rows columns"]:
    """Values by row and column, NaN where there is none."""
    rows = [one for one in found.series if one.measure == measure]
    grid = np.full((len(rows), len(found.along)), np.nan)
    for (i, j), _ in np.ndenumerate(grid):
        point, level = rows[i].at(found.along[j]), found.along[j]
        if paper:
            grid[i, j] = rows[i].paper.get(level, np.nan)
        elif point is not None:
            grid[i, j] = point.mean
    return grid


def _field_text(unit: str, value: float) -> str:
    if np.isnan(value):
        return ""
    return number_text(unit, value) if unit else f"{value:g}"
