"""The figures of `headwise theory` on limits and on trained heads."""

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
from headwise.theory.figures import by_place, diagonal
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
    """Least tokens per class by β: predicted and simulated, and where class and self balance."""
    figure, axes = new_axes(3.3)
    starts = sorted({check.cosines.within for check in checks})
    for a, colour in zip(starts, COLOURS, strict=False):
        mine = [check for check in checks if check.cosines.within == a]
        betas = [check.layer.beta for check in mine]
        balance = [
            balance_per_class(check.cosines, check.layer.beta, check.batch.width) for check in mine
        ]
        _predicted_and_simulated(axes, mine, colour, f"a = {a:g}")
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
        "The smallest batch that brings classes together",
        "The least number of tokens per class with which a reaches 0.9, by inverse temperature: "
        "predicted, and in random batches.",
        csv_text(_LIMIT_COLUMNS, [_limit(check) for check in checks]),
    )


def share_figure(checks: Sequence[LimitCheck]) -> Drawing:
    """Least share of the cosines that augmentation must keep, by β."""
    figure, axes = new_axes(3.3)
    sizes = sorted({check.batch.per_class for check in checks})
    for n, colour in zip(sizes, COLOURS, strict=False):
        mine = [check for check in checks if check.batch.per_class == n]
        _predicted_and_simulated(axes, mine, colour, f"n = {n:g}")
    axes.set_ylim(0, 1)
    axes.set_xlabel("β")
    axes.set_ylabel("least kept share ρ")
    _limit_legend(figure)
    return finish(
        figure,
        "maximum-augmentation",
        "The strongest augmentation that fuses",
        "The least share of the cosines that augmentation must keep for classes to fuse, by "
        "inverse temperature: predicted, and in random batches.",
        csv_text(_LIMIT_COLUMNS, [_limit(check) for check in checks]),
    )


def trained_figure(blocks: Sequence[tuple[str, BlockTheory]]) -> Drawing:
    """Trained heads, block by block: predicted against measured."""
    figure = Figure(figsize=(WIDE_INCHES, 6.6), layout="constrained")
    runs = list(dict.fromkeys(run for run, _ in blocks))
    colours = dict(zip(runs, COLOURS * len(runs), strict=False))
    for place, name in enumerate(("a'", "b'", "separation of classes", "fusion gain")):
        axes = figure.add_subplot(2, 2, place + 1)
        drawn = []
        for run, block in blocks:
            measured, predicted, others = _compared(block, place)
            axes.plot(measured, predicted, "o", color=colours[run], markersize=4)
            for marker, value in zip("o+", others, strict=False):
                axes.plot(measured, value, marker, color=colours[run], fillstyle="none")
            drawn += [measured, predicted, *others]
        diagonal(axes, min(drawn), max(drawn))
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
        "those of the map against those measured; on the diagonal they agree.",
        csv_text(_TRAINED_COLUMNS, [(run, *_trained(block)) for run, block in blocks]),
    )


def study_figure(run: str, study: str, points: Sequence[StudyPoint]) -> Drawing:
    """Fusion gain of each block by batch size or augmentation strength."""
    figure, axes = new_axes(3.3)
    for place, tap in enumerate(dict.fromkeys(point.tap for point in points)):
        mine = [point for point in points if point.tap == tap]
        settings = [point.setting for point in mine]
        colour, dashes = line_style(place)
        predicted = [point.predicted_gain for point in mine]
        axes.plot(settings, predicted, color=colour, linestyle=dashes, label=tap)
        axes.plot(settings, [point.measured_gain for point in mine], "o", color=colour)
    axes.set_xlabel(study)
    axes.set_ylabel("fusion gain")
    _limit_legend(figure, name="measured")
    return finish(
        figure,
        f"study-{run}-{study.replace(' ', '-')}",
        f"{run}: fusion gain by {study}",
        f"Fusion gain of each block of a trained head by {study}: lines are predicted, points "
        "measured.",
        csv_text(StudyPoint._fields, points),
    )


def _predicted_and_simulated(
    axes: Axes, checks: Sequence[LimitCheck], colour: str, label: str
) -> None:
    """A line and points over β."""
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


def _limit(check: LimitCheck) -> tuple[int | float, ...]:
    layer, batch = check.layer, check.batch
    where = (layer.beta, layer.residual, *check.cosines[:2])
    size = (batch.classes, batch.per_class, batch.width)
    return (*where, *size, check.predicted, check.simulated)


def _compared(block: BlockTheory, place: int) -> tuple[float, float, list[float]]:
    """Measured, predicted, and other predictions: from the measured attention, and no change. Of
    a', b', separation or the gain."""
    if place == 3:
        return block.measured_gain, block.predicted_gain, []
    found = (block.measured, block.predicted, block.from_weights, block.before)
    measured, predicted, *others = (
        separation(cosines) if place == 2 else by_place(cosines, place) for cosines in found
    )
    return measured, predicted, others


def _trained(block: BlockTheory) -> tuple[object, ...]:
    layer = block.layer
    fit = sum(block.beta_fit) / len(block.beta_fit)
    estimates = (block.tap, layer.beta, fit, layer.residual, layer.alignment, block.batch.width)
    cosines = (block.before, block.predicted, block.from_weights, block.measured)
    both = [value for one in cosines for value in one[:2]]
    return (*estimates, *both, block.predicted_gain, block.measured_gain)
