"""The figures of one evaluated run that are grids: factors, parameters of views, confusion."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from headwise.evaluation.protocols.transformations import TASKS
from headwise.report.plots.comparison import heatmap
from headwise.report.plots.drawing import WIDE_INCHES, WIDTH_INCHES, Drawing, finish
from headwise.report.reading.evaluation import Evaluation, places
from headwise.report.tables.numbers import label
from headwise.runs.results import Result

WIDE_CLASSES = 30
"""With more classes the matrix takes the width of the page, so that their names can be read."""
NAMED_CLASSES = 120
"""With more no width is enough: classes have numbers."""
_WRITTEN_CLASSES = 12
"""Up to so many the shares are written into the fields."""


def factor_grid(evaluation: Evaluation) -> Drawing | None:
    """How well each factor is predicted at each tap."""
    described = (
        "How well each factor is predicted at each tap, 0 to 1; the numbers are in the table below."
    )
    results = evaluation.of("factor")
    return _grid(results, "factors", "Factors predicted at every tap", described)


def parameter_grid(evaluation: Evaluation) -> Drawing | None:
    """How well the parameters of views are predicted at each tap."""
    described = "R² of each parameter of a view at each tap; the numbers are in the table below."
    results = [r for r in evaluation.of("transformation") if r.variant not in TASKS]
    return _grid(results, "transformation-parameters", "Parameters of views, R²", described)


def confusion_matrix(evaluation: Evaluation) -> Drawing | None:
    """Predicted class by right class: shares of each row, 0 to 1, coloured by their square root, so
    that rare mistakes are visible."""
    counts = _confusion(evaluation)
    if counts is None:
        return None
    shares, names = _shares(counts), _class_names(evaluation, len(counts))
    count = len(counts)
    side = WIDTH_INCHES if count <= WIDE_CLASSES else WIDE_INCHES
    figure = Figure(figsize=(side, side + 0.3), layout="constrained")
    axes = figure.add_subplot()
    norm = PowerNorm(0.5, vmin=0, vmax=1)
    image = axes.imshow(shares, cmap="cividis", norm=norm, interpolation="none")
    _name_classes(axes, names, size=min(8.5, 0.8 * 72 * (side - 1.3) / count))
    if count <= _WRITTEN_CLASSES:
        for (row, column), share in np.ndenumerate(shares):
            ink = "#ffffff" if norm(share) < 0.55 else "#000000"
            text = f"{100 * share:.0f}" if share >= 0.005 else ""
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=7.5)
    else:
        where = {"location": "top", "shrink": 0.4, "aspect": 30, "pad": 0.01}
        bar = figure.colorbar(image, ax=axes, format=lambda x, _: f"{100 * x:.0f}", **where)
        bar.outline.set_visible(False)
        bar.set_label("% of the class")
    axes.set_ylabel("class")
    axes.set_xlabel("predicted class")
    described = f"Predictions of the linear probe on h by class. {most_confused(evaluation)}"
    return finish(figure, "confusion", "Confusion of the linear probe on h", described)


def _name_classes(axes: Axes, names: list[str], size: float) -> None:
    """Names on both axes; numbers if there are too many classes."""
    if len(names) <= NAMED_CLASSES:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
        axes.set_yticks(range(len(names)), names, fontsize=size)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)


def most_confused(evaluation: Evaluation, count: int = 3) -> str:
    """The most common mistakes in a sentence; empty if there are none."""
    counts = _confusion(evaluation)
    if counts is None:
        return ""
    shares, names = _shares(counts), _class_names(evaluation, len(counts))
    np.fill_diagonal(shares, 0)
    order = np.argsort(-shares, axis=None, kind="stable")[:count]
    pairs = [(int(i) // len(shares), int(i) % len(shares)) for i in order]
    words = [
        f"{names[row]} as {names[column]} ({100 * shares[row, column]:.0f} %)"
        for row, column in pairs
        if shares[row, column] > 0
    ]
    return f"The most common mistakes: {', '.join(words)}." if words else ""


def _grid(results: list[Result], name: str, title: str, described: str) -> Drawing | None:
    """Labels down, taps across."""
    if not results:
        return None
    along, labels = places(results), list(dict.fromkeys(label(result) for result in results))
    values = np.full((len(labels), len(along)), np.nan)
    for result in results:
        values[labels.index(label(result)), along.index(result.where)] = result.value
    return finish(heatmap(values, labels, along), name, title, described)


def _confusion(evaluation: Evaluation) -> np.ndarray | None:
    """Counts of the linear probe on h, right class down."""
    return evaluation.arrays.get("confusion/linear/h")


def _shares(counts: np.ndarray) -> np.ndarray:
    """Each row over its sum; a class without test images has none."""
    return counts / np.maximum(counts.sum(1, keepdims=True), 1)


def _class_names(evaluation: Evaluation, count: int) -> list[str]:
    """Their numbers if the names are not known."""
    names = evaluation.data.classes
    names = names if len(names) == count else tuple(map(str, range(count)))
    return [name if len(name) <= 18 else f"{name[:17]}…" for name in names]
