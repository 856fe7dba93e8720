"""The figures of one evaluated run that are grids: factors, parameters of views, confusion."""

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from headwise.evaluation.protocols.transformations import TASKS
from headwise.report.plots.comparison import heatmap
from headwise.report.plots.drawing import WIDE_INCHES, WIDTH_INCHES, Drawing, finish
from headwise.report.reading.evaluation import Evaluation
from headwise.report.tables.evaluation import label

WIDE_CLASSES = 30
"""With more classes the matrix takes the width of the page, so that their names can be read."""
NAMED_CLASSES = 120
"""With more no width is enough: classes have numbers."""
_WRITTEN_CLASSES = 12
"""Up to so many the shares are written into the fields."""


def factor_grid(evaluation: Evaluation) -> Drawing | None:
    """How well each factor is read at each tap."""
    described = (
        "How well each factor is read at each tap, 0 to 1; the numbers are in the table below."
    )
    return _grid(evaluation, r"factor_\w+", "factors", "Factors read at every tap", described)


def parameter_grid(evaluation: Evaluation) -> Drawing | None:
    """How well the parameters of views are read at each tap."""
    tasks = "|".join(TASKS)
    described = "R² of each parameter of a view at each tap; the numbers are in the table below."
    return _grid(
        evaluation,
        rf"transformation_(?!({tasks})$)\w+",
        "transformation-parameters",
        "Parameters of views, R²",
        described,
    )


def confusion_matrix(evaluation: Evaluation) -> Drawing | None:
    """Answers by right class: shares of each row, 0 to 1, coloured by their square root, so that
    rare mistakes show."""
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
    size = min(8.5, 0.8 * 72 * (side - 1.3) / count)
    if count <= NAMED_CLASSES:
        axes.set_xticks(range(count), names, rotation=90, fontsize=size)
        axes.set_yticks(range(count), names, fontsize=size)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(10, integer=True))
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
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_ylabel("class")
    axes.set_xlabel("answer")
    described = f"Answers of the linear probe on h by right class. {most_confused(evaluation)}"
    return finish(figure, "confusion", "Confusion of the linear probe on h", described)


def most_confused(evaluation: Evaluation, count: int = 3) -> str:
    """The commonest mistakes in a sentence; empty where there are none."""
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
    return f"Most often mistaken: {', '.join(words)}." if words else ""


def _grid(
    evaluation: Evaluation, pattern: str, name: str, title: str, described: str
) -> Drawing | None:
    measures = evaluation.measures(pattern)
    if not measures:
        return None
    taps = evaluation.whats(measures)
    found = [[evaluation.get(measure, tap) for tap in taps] for measure in measures]
    values = np.array([[np.nan if n is None else n.value for n in row] for row in found])
    figure = heatmap(values, [label(measure) for measure in measures], taps)
    return finish(figure, name, title, described)


def _confusion(evaluation: Evaluation) -> np.ndarray | None:
    """Of the linear probe on h, counts, right class down."""
    return evaluation.arrays.get("confusion/linear/h")


def _shares(counts: np.ndarray) -> np.ndarray:
    """Of every row; a class without test images has none."""
    return counts / np.maximum(counts.sum(1, keepdims=True), 1)


def _class_names(evaluation: Evaluation, count: int) -> list[str]:
    """Their numbers where the names are not known."""
    names = evaluation.arrays.get("classes", np.arange(count))
    names = names if len(names) == count else np.arange(count)
    return [name if len(name) <= 18 else f"{name[:17]}…" for name in map(str, names)]
