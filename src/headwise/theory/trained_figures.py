"""The figures of `headwise theory` for limits and for trained heads."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from headwise.report.plots.comparison import line_style
from headwise.report.plots.drawing import (
    COLOURS,
    MUTED,
    WIDE_INCHES,
    Drawing,
    csv_text,
    finish,
    new_axes,
)
from headwise.theory.figures import diagonal
from headwise.theory.limits import LimitCheck, balance_per_class
from headwise.theory.map import separation
from headwise.theory.studies import StudyPoint
from headwise.theory.trained import BlockTheory

_LIMIT_COLUMNS = (
    "beta", "residual", "a", "b", "classes", "per_class", "width", "predicted", "simulated",
)  # fmt: skip
_TRAINED_COLUMNS = (
    "run", "tap", "beta", "beta_fit", "residual", "alignment", "width", "a", "b",
    "a_predicted", "b_predicted", "a_from_weights", "b_from_weights", "a_measured", "b_measured",
    "gain_predicted", "gain_measured",
)  # fmt: skip


def minimum_figure(checks: Sequence[LimitCheck]) -> Drawing:
    """Draw the least number of tokens per class by β, and that of equal class and self mass."""
    figure, axes = new_axes(3.3)
    starts = sorted({check.cosines.within for check in checks})
    for a, colour in zip(starts, COLOURS, strict=False):
        group = [check for check in checks if check.cosines.within == a]
        betas = [check.layer.beta for check in group]
        balance = [
            balance_per_class(check.cosines, check.layer.beta, check.batch.width) for check in group
        ]
        _predicted_and_simulated(axes, group, colour, f"a = {a:g}")
        axes.plot(betas, balance, color=colour, linestyle=":", linewidth=1)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("β")
    axes.set_ylabel("least tokens per class")
    _limit_legend(figure, balance=True)
    return finish(
        figure,
        "minimum-batch",
        "The smallest batch with fusion",
        "The least number of tokens per class with which a reaches 0.9, by inverse temperature: "
        "predicted, and in random batches.",
        csv_text(_LIMIT_COLUMNS, [_limit_row(check) for check in checks]),
    )


def share_figure(checks: Sequence[LimitCheck]) -> Drawing:
    """Draw the least share of the cosines that augmentation must keep, by β."""
    figure, axes = new_axes(3.3)
    sizes = sorted({check.batch.per_class for check in checks})
    for n, colour in zip(sizes, COLOURS, strict=False):
        group = [check for check in checks if check.batch.per_class == n]
        _predicted_and_simulated(axes, group, colour, f"n = {n:g}")
    axes.set_ylim(0, 1)
    axes.set_xlabel("β")
    axes.set_ylabel("least kept share ρ")
    _limit_legend(figure)
    return finish(
        figure,
        "maximum-augmentation",
        "The strongest augmentation with fusion",
        "The least share of the cosines that augmentation must keep for classes to fuse, by "
        "inverse temperature: predicted, and in random batches.",
        csv_text(_LIMIT_COLUMNS, [_limit_row(check) for check in checks]),
    )


def trained_figure(blocks: Sequence[tuple[str, BlockTheory]]) -> Drawing:
    """Draw predicted against measured values of trained heads, block by block."""
    figure = Figure(figsize=(WIDE_INCHES, 6.6), layout="constrained")
    runs = list(dict.fromkeys(run for run, _ in blocks))
    colours = dict(zip(runs, COLOURS * len(runs), strict=False))
    for i, name in enumerate(("a'", "b'", "separation of classes", "fusion gain")):
        axes = figure.add_subplot(2, 2, i + 1)
        values = []
        for run, block in blocks:
            measured, predicted, others = _panel_values(block, i)
            axes.plot(measured, predicted, "o", color=colours[run], markersize=4)
            for marker, value in zip("o+", others, strict=False):
                axes.plot(measured, value, marker, color=colours[run], fillstyle="none")
            values += [measured, predicted, *others]
        diagonal(axes, min(values), max(values))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel(f"{name}: measured")
        axes.set_ylabel("predicted")
    point: dict[str, Any] = {"linestyle": "", "markersize": 4}
    handles = [Line2D([], [], color=colours[run], marker="o", label=run, **point) for run in runs]
    for marker, label in (("o", "from measured attention"), ("+", "no change")):
        style: dict[str, Any] = {"marker": marker, "fillstyle": "none", "color": MUTED, **point}
        handles.append(Line2D([], [], label=label, **style))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return finish(
        figure,
        "trained",
        "Trained heads: predicted and measured",
        "Mean cosines, separation of classes and fusion gain after each block of trained heads: "
        "the map's prediction against the measurement. They are equal on the diagonal.",
        csv_text(_TRAINED_COLUMNS, [(run, *_trained_row(block)) for run, block in blocks]),
    )


def study_figure(run: str, study: str, points: Sequence[StudyPoint]) -> Drawing:
    """Draw the fusion gain of each block by batch size or augmentation strength."""
    figure, axes = new_axes(3.3)
    for i, tap in enumerate(dict.fromkeys(point.tap for point in points)):
        block = [point for point in points if point.tap == tap]
        settings = [point.setting for point in block]
        colour, dashes = line_style(i)
        predicted = [point.predicted_gain for point in block]
        axes.plot(settings, predicted, color=colour, linestyle=dashes, label=tap)
        axes.plot(settings, [point.measured_gain for point in block], "o", color=colour)
    axes.set_xlabel(study)
    axes.set_ylabel("fusion gain")
    _limit_legend(figure, name="measured")
    return finish(
        figure,
        f"study-{run}-{study.replace(' ', '-')}",
        f"{run}: fusion gain by {study}",
        f"Fusion gain of each block of a trained head by {study}. Lines are predicted, and points "
        "are measured.",
        csv_text(StudyPoint._fields, points),
    )


def _predicted_and_simulated(
    axes: Axes, checks: Sequence[LimitCheck], colour: str, label: str
) -> None:
    """Draw the predicted limits as a line over β and the simulated ones as points."""
    betas = [check.layer.beta for check in checks]
    axes.plot(betas, [check.predicted for check in checks], color=colour, label=label)
    axes.plot(betas, [check.simulated for check in checks], "o", color=colour, markersize=4)


def _limit_legend(figure: Figure, *, balance: bool = False, name: str = "simulated") -> None:
    handles, _ = figure.axes[0].get_legend_handles_labels()
    point: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 4}
    handles.append(Line2D([], [], color=MUTED, label=name, **point))
    if balance:
        label = "class mass = self mass"
        handles.append(Line2D([], [], color=MUTED, linestyle=":", linewidth=1, label=label))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)


def _limit_row(check: LimitCheck) -> tuple[int | float, ...]:
    layer, batch = check.layer, check.batch
    where = (layer.beta, layer.residual, *check.cosines[:2])
    size = (batch.classes, batch.per_class, batch.width)
    return (*where, *size, check.predicted, check.simulated)


def _panel_values(block: BlockTheory, panel: int) -> tuple[float, float, list[float]]:
    """Return a', b', separation or gain: measured, predicted, and two other predictions, from
    the measured attention and without a change."""
    if panel == 3:
        return block.measured_gain, block.predicted_gain, []
    cosines = (block.measured, block.predicted, block.from_weights, block.before)
    measured, predicted, *others = (separation(c) if panel == 2 else c[:2][panel] for c in cosines)
    return measured, predicted, others


def _trained_row(block: BlockTheory) -> tuple[object, ...]:
    layer = block.layer
    fit = sum(block.beta_fit) / len(block.beta_fit)
    estimates = (block.tap, layer.beta, fit, layer.residual, layer.alignment, block.batch.width)
    cosines = (block.before, block.predicted, block.from_weights, block.measured)
    values = [value for c in cosines for value in c[:2]]
    return (*estimates, *values, block.predicted_gain, block.measured_gain)
