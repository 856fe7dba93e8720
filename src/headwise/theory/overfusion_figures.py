"""The figures of NT-Xent's over-fusion: the curvature at the collapse, and the escape from it."""

from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from headwise.report.plots.comparison import power_of_ten
from headwise.report.plots.drawing import (
    COLOURS,
    DASHES,
    INK,
    MUTED,
    Drawing,
    csv_text,
    finish,
    new_axes,
)
from headwise.theory.overfusion import Descent, OverfusionDemo, Spectrum

_PRECISIONS: dict[torch.dtype, tuple[str, str, Any]] = {
    torch.float64: ("float64", COLOURS[0], "-"),
    torch.float32: ("float32", COLOURS[1], DASHES[1]),
}


def curvature_figure(spectra: tuple[Spectrum, ...]) -> Drawing:
    """Draw the Hessian's eigenvalues by motion, in closed form and by automatic differentiation."""
    lines = sum(1 + len(spectrum.levels) for spectrum in spectra)
    figure, axes = new_axes(0.9 + 0.21 * lines)
    axes.axvline(0, color=INK, linewidth=0.8)
    names, rows = [], []
    for spectrum in spectra:
        names.append(spectrum.title)
        axes.axhline(len(names) - 1.5, color=MUTED, linewidth=0.5)
        remaining = spectrum.measured.tolist()
        for level in sorted(spectrum.levels, key=lambda level: level.eigenvalue):
            measured, remaining = remaining[: level.directions], remaining[level.directions :]
            y = [len(names)] * level.directions
            axes.plot(level.eigenvalue, y[0], "o", color=COLOURS[0], markersize=8, fillstyle="none")
            axes.plot(measured, y, ".", color=COLOURS[1], markersize=6)
            names.append(f"{level.motion}, {level.directions}×")
            rows += [(spectrum.title, level.motion, level.eigenvalue, value) for value in measured]
    axes.set_yticks(range(len(names)), names)
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_fontweight("bold" if name in [s.title for s in spectra] else "normal")
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.set_xlabel("curvature of the loss")
    handles = [
        Line2D([], [], linestyle="", marker="o", color=COLOURS[0], fillstyle="none", markersize=8),
        Line2D([], [], linestyle="", marker=".", color=COLOURS[1], markersize=6),
    ]
    labels = ["closed form", "automatic differentiation"]
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    description = (
        "Eigenvalues of NT-Xent's Hessian on the sphere, if all rows are equal and if half the "
        "images are at each pole of a line. The loss falls when images part and rises when twins "
        "part: the collapse is a saddle."
    )
    table = csv_text(("point", "motion", "closed_form", "measured"), rows)
    return finish(figure, "overfusion-curvature", "Collapse is a saddle", description, table)


def escape_figure(demo: OverfusionDemo) -> Drawing:
    """Draw the spread of the images at every step, by the noise at the start."""
    figure, axes = new_axes(3.3)
    for descent in demo.descents:
        _draw_descent(axes, demo, descent)
    axes.axhline(demo.escaped, color=MUTED, linewidth=1)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(power_of_ten))
    axes.set_xlabel("steps of descent")
    axes.set_ylabel("spread of the images")
    axes.set_ylim(bottom=1e-12)
    axes.set_xlim(0, len(demo.descents[0].escape.spread) - 1)
    handles = [
        *(Line2D([], [], color=c, linestyle=d, label=n) for n, c, d in _PRECISIONS.values()),
        Line2D([], [], color=INK, linestyle=":", linewidth=1, label="predicted"),
        Line2D([], [], color=MUTED, linewidth=1, label="escaped"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, columnspacing=1.1)
    description = (
        "The spread of projections that start equal except for noise grows at every step by the "
        f"predicted factor {demo.growth:.3f} until it is of order one. The number of steps is "
        "proportional to the logarithm of the noise. Without noise, or with noise that float32 "
        "rounds away, nothing moves."
    )
    columns = ("noise", "precision", "step", "spread", "predicted", "loss")
    table = csv_text(columns, [row for descent in demo.descents for row in _rows(demo, descent)])
    return finish(figure, "overfusion-escape", "The escape from collapse", description, table)


def _draw_descent(axes: Axes, demo: OverfusionDemo, descent: Descent) -> None:
    _, colour, dashes = _PRECISIONS[descent.dtype]
    spread = descent.escape.spread
    first, last = spread[0].item(), len(spread) - 1
    if first == 0:  # a logarithmic axis has no 0
        return
    axes.plot(spread, color=colour, linestyle=dashes)
    noise = power_of_ten(descent.noise)
    if descent.predicted is None:
        text = f"{noise}: lost in rounding"
        axes.text(last - 3, 1.5 * first, text, color=colour, ha="right", va="bottom")
        return
    steps = range(descent.predicted + 1)
    expected = [_predicted(demo, descent, step) for step in steps]
    axes.plot(steps, expected, color=INK, linestyle=":", linewidth=1)
    if descent.dtype == torch.float64:
        axes.text(8, 0.7 * first, noise, color=colour, va="top")


def _rows(demo: OverfusionDemo, descent: Descent) -> list[tuple[object, ...]]:
    precision, (spread, loss) = _PRECISIONS[descent.dtype][0], descent.escape
    return [
        (descent.noise, precision, step, value, _predicted(demo, descent, step), nats)
        for step, (value, nats) in enumerate(zip(spread.tolist(), loss.tolist(), strict=True))
    ]


def _predicted(demo: OverfusionDemo, descent: Descent, step: int) -> float:
    """Return the spread by the second-order expansion, or NaN beyond its range."""
    growth = demo.growth if descent.predicted is not None else 1.0
    spread = descent.escape.spread[0].item() * growth**step
    return spread if spread <= demo.escaped * demo.growth else float("nan")
