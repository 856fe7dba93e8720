"""The figures of NT-Xent's over-fusion: curvature at collapse, and the way out of it.

Call within `style()`.
"""

from typing import Any

import torch
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
    """The Hessian's eigenvalues by what moves: closed form and automatic differentiation."""
    lines = sum(1 + len(spectrum.levels) for spectrum in spectra)
    figure, axes = new_axes(0.9 + 0.21 * lines)
    axes.axvline(0, color=INK, linewidth=0.8)
    names, rows = [], []
    for spectrum in spectra:
        names.append(spectrum.title)
        axes.axhline(len(names) - 1.5, color=MUTED, linewidth=0.5)
        found = spectrum.measured.tolist()
        for level in sorted(spectrum.levels, key=lambda level: level.eigenvalue):
            measured, found = found[: level.directions], found[level.directions :]
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
    words = ["closed form", "automatic differentiation"]
    figure.legend(handles, words, loc="outside lower center", ncols=2)
    described = (
        "Eigenvalues of NT-Xent's Hessian on the sphere where all rows are equal and where half "
        "the images are at each pole of a line. Images parting is downhill, twins parting uphill: "
        "a saddle."
    )
    table = csv_text(("point", "motion", "closed_form", "measured"), rows)
    return finish(figure, "overfusion-curvature", "Collapse is a saddle", described, table)


def escape_figure(demo: OverfusionDemo) -> Drawing:
    """How far images are apart at every step, by how much noise there was at the start."""
    figure, axes = new_axes(3.3)
    rows = []
    for descent in demo.descents:
        name, colour, dashes = _PRECISIONS[descent.dtype]
        spread = descent.escape.spread
        rows += [
            (descent.noise, name, step, value, _predicted(demo, descent, step), loss)
            for step, (value, loss) in enumerate(
                zip(spread.tolist(), descent.escape.loss.tolist(), strict=True)
            )
        ]
        if spread[0] == 0:  # nowhere on a logarithmic axis
            continue
        axes.plot(spread, color=colour, linestyle=dashes)
        noise = power_of_ten(descent.noise)
        first, last = spread[0].item(), len(spread) - 1
        if descent.predicted is None:
            words = f"{noise}: lost in rounding"
            axes.text(last - 3, 1.5 * first, words, color=colour, ha="right", va="bottom")
            continue
        steps = range(descent.predicted + 1)
        expected = [_predicted(demo, descent, step) for step in steps]
        axes.plot(steps, expected, color=INK, linestyle=":", linewidth=1)
        if descent.dtype == torch.float64:
            axes.text(8, 0.7 * first, noise, color=colour, va="top")
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
    described = (
        "The spread of projections that start equal but for noise grows by the predicted factor at "
        f"every step, {demo.growth:.3f}, until it is of order one; the time to get there is the "
        "logarithm of the noise. Without noise nothing moves, nor in float32 below rounding."
    )
    columns = ("noise", "precision", "step", "spread", "predicted", "loss")
    return finish(
        figure, "overfusion-escape", "The way out of collapse", described, csv_text(columns, rows)
    )


def _predicted(demo: OverfusionDemo, descent: Descent, step: int) -> float:
    """The spread by the second order, for as long as it holds."""
    growth = demo.growth if descent.predicted is not None else 1.0
    spread = descent.escape.spread[0].item() * growth**step
    return spread if spread <= demo.escaped * demo.growth else float("nan")
