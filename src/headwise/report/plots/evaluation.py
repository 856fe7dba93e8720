"""The figures of one evaluated run: curves and bars."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

from headwise.evaluation.protocols.transformations import PAPER, TASKS
from headwise.report.plots.comparison import line_style, spectrum_figure
from headwise.report.plots.drawing import (
    COLOURS,
    INK,
    MUTED,
    WIDTH_INCHES,
    Drawing,
    Look,
    finish,
    new_axes,
)
from headwise.report.reading.evaluation import Evaluation, places, taps
from headwise.report.tables.numbers import interval_of, value_text
from headwise.runs.results import Result

_PROBES = {"linear": ("linear probe", COLOURS[0], "o"), "knn": ("kNN", COLOURS[1], "s")}
_BASELINES: dict[str, tuple[str, Any]] = {
    "pixels": ("raw pixels", ":"),
    "untrained": ("untrained", "--"),
    "start": ("start weights", "-."),
}
_TAP_COLOURS = {"h": COLOURS[0], "z": COLOURS[4], "untrained": COLOURS[6]}
_DIAMOND: dict[str, Any] = {
    "marker": "D",
    "markersize": 4.5,
    "markerfacecolor": "#ffffff",
    "markeredgecolor": "#000000",
}
_ORDERS = {
    "shuffled": "shuffled batches",
    "sorted": "batches of one class",
    "singleton": "one by one",
}
_KINDS = {
    "robustness": ("accuracy", COLOURS[0], "o", "-"),
    "invariance": ("cosine", COLOURS[1], "s", "--"),
}


def taps_curve(evaluation: Evaluation) -> Drawing | None:
    """Accuracy along the model, a line a probe; baselines and chance across."""
    along = taps(evaluation.of(*_PROBES))
    if len(along) < 2:
        return None
    figure, axes = new_axes(3.2)
    _shade_head(axes, along)
    for probe, (_, colour, marker) in _PROBES.items():
        found = [(i, r) for i, tap in enumerate(along) if (r := evaluation.leading(probe, tap))]
        _band(axes, [i for i, _ in found], [r for _, r in found], Look("", colour, "-", marker))
        for name, (_, dashes) in _BASELINES.items():
            if result := evaluation.leading(probe, name):
                axes.axhline(100 * result.value, color=colour, linestyle=dashes, linewidth=1)
    chance = _chance(evaluation, along)
    if chance is not None:
        axes.axhline(100 * chance, color=MUTED, linewidth=1)
    axes.set_xticks(range(len(along)), along)
    axes.set_xlim(-0.2, len(along) - 0.8)
    axes.grid(False, axis="x")
    axes.set_ylim(bottom=0)
    axes.set_ylabel(_ylabel(evaluation))
    figure.legend(handles=_taps_legend(evaluation, chance), loc="outside lower center", ncols=3)
    described = (
        "Accuracy of probes at every tap from the encoder to z, with 95 % bands; "
        "the numbers are in the table below."
    )
    return finish(figure, "taps", "Accuracy at every tap", described)


def transformation_bars(evaluation: Evaluation) -> Drawing | None:
    """Bars of h and z for every transformation, the paper's values as diamonds."""
    results = [r for r in evaluation.of("transformation") if r.variant in TASKS]
    tasks = [task for task in TASKS if any(r.variant == task for r in results)]
    if not tasks:
        return None
    shown = places(results)
    figure, axes = new_axes(1.2 + 0.22 * len(shown) * len(tasks))
    thick = 0.8 / len(shown)
    for y, task in enumerate(tasks):
        for i, tap in enumerate(shown):
            place = y + (i - (len(shown) - 1) / 2) * thick
            result = evaluation.get("transformation", tap, task)
            if result is not None:
                _bar(axes, place, result, _TAP_COLOURS[tap], 0.92 * thick)
                if result.chance is not None:
                    ends = [place - thick / 2, place + thick / 2]
                    axes.plot([100 * result.chance] * 2, ends, color=INK, linestyle=":")
            if tap in PAPER[task]:
                axes.plot(100 * PAPER[task][tap], place, zorder=4, clip_on=False, **_DIAMOND)
    axes.set_yticks(range(len(tasks)), tasks)
    _percent_axis(axes)
    handles = [
        *(Line2D([], [], color=_TAP_COLOURS[tap], linewidth=6, label=tap) for tap in shown),
        Line2D([], [], linestyle="", label="SimCLR's table 3", **_DIAMOND),
        Line2D([], [], color=INK, linestyle=":", label="chance"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, columnspacing=1.1)
    described = (
        "Accuracy of predicting the transformation from h and from z, beside chance and SimCLR's "
        "values, whose pretraining had the transformation; the numbers are in the table below."
    )
    return finish(figure, "transformations", "Which transformation was applied", described)


def semi_curve(evaluation: Evaluation) -> Drawing | None:
    """Accuracy against the share of labels, fine-tuned and from scratch."""
    lines = {
        "fine-tuned from pretraining": _by_share(evaluation, "finetuned", "h"),
        "from scratch": _by_share(evaluation, "scratch", "scratch"),
    }
    shares = sorted({share for line in lines.values() for share in line})
    if not evaluation.of("semi"):
        return None
    figure, axes = new_axes(2.9)
    for i, (name, line) in enumerate(lines.items()):
        colour, dashes = line_style(i)
        results = [line[share] for share in sorted(line)]
        _band(axes, sorted(line), results, Look(name, colour, dashes, "os"[i]))
    axes.set_xscale("log")
    axes.set_xticks(shares, [f"{share:g} %" for share in shares])
    axes.xaxis.set_minor_locator(FixedLocator([]))
    axes.set_xlabel("of the training labels")
    axes.set_ylabel(_ylabel(evaluation))
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=2)
    described = (
        "Accuracy after fine-tuning against the share of labels used, pretrained and from scratch; "
        "the numbers are in the table below."
    )
    return finish(figure, "semi", "With few labels", described)


def leakage_bars(evaluation: Evaluation) -> Drawing | None:
    """k-NN on z by which images share a batch."""
    found = [
        (words, result)
        for order, words in _ORDERS.items()
        if (result := evaluation.get("leakage_knn", order))
    ]
    if not found:
        return None
    figure, axes = new_axes(0.75 + 0.36 * len(found))
    for y, (_, result) in enumerate(found):
        _bar(axes, y, result, _TAP_COLOURS["z"], 0.6)
    axes.set_yticks(range(len(found)), [words for words, _ in found])
    _percent_axis(axes)
    described = (
        "Accuracy of k-NN on z in shuffled batches, in batches of one class and one by one; "
        "the numbers are in the table below."
    )
    return finish(figure, "leakage", "kNN on z, by batch", described)


def robustness_panels(evaluation: Evaluation) -> Drawing | None:
    """A panel an augmentation: accuracy of h, and its cosine to the h of the image as it is."""
    augmentations = _augmentations(evaluation)
    if not augmentations:
        return None
    rows = -(-len(augmentations) // 3)
    figure = Figure(figsize=(WIDTH_INCHES, 0.45 + 1.15 * rows), layout="constrained")
    panels = figure.subplots(rows, 3, sharey=True, squeeze=False).ravel()
    for axes in panels[len(augmentations) :]:
        axes.set_visible(False)
    for axes, (kind, variants) in zip(panels, augmentations.items(), strict=False):
        _panel(axes, evaluation, kind, variants)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    described = (
        "A panel for each augmentation: accuracy of h, and cosine between h with and without the "
        "augmentation, against its strength; the numbers are in the table below."
    )
    return finish(figure, "robustness", "What augmentations do to h", described)


def tap_spectra(evaluation: Evaluation) -> Drawing | None:
    """Singular values of the covariance at every tap."""
    along = taps(evaluation.of("rank"))
    values = {tap: evaluation.arrays.get(f"spectrum/rank/{tap}") for tap in along}
    styles = {tap: line_style(i) for i, tap in enumerate(along)}
    figure = spectrum_figure(values, styles)
    described = "Normalised singular values of the covariance, a line for each tap."
    if figure is None:
        return None
    return finish(figure, "spectra", "Singular values at every tap", described)


def _shade_head(axes: Axes, along: list[str]) -> None:
    """Grey behind what belongs to the projection head."""
    if "h" not in along or along[-1] == "h":
        return
    start = along.index("h")
    axes.axvspan(start, len(along) - 0.8, color=MUTED, alpha=0.12, linewidth=0)
    edge = axes.get_xaxis_transform()
    words = "projection head"
    axes.text(start + 0.06, 1.01, words, transform=edge, va="bottom", color=MUTED)


def _band(axes: Axes, at: Sequence[int | float], results: Sequence[Result], look: Look) -> None:
    """A line in percent with its 95 % band."""
    low, high = 100 * np.array([interval_of(result) for result in results]).reshape(-1, 2).T
    percents = [100 * result.value for result in results]
    style = {"marker": look.marker, "markersize": 4, "linestyle": look.dashes}
    axes.plot(at, percents, color=look.colour, label=look.label or None, **style)
    axes.fill_between(at, low, high, color=look.colour, alpha=0.2, linewidth=0)


def _by_share(evaluation: Evaluation, arm: str, with_all: str) -> dict[float, Result]:
    """By percent of the labels. With all of them it is another protocol."""
    shares = [r.variant for r in evaluation.of("semi") if r.where == arm]
    leading = {share: evaluation.leading("semi", arm, share) for share in shares}
    found = {float(share): result for share, result in leading.items() if result}
    if result := evaluation.leading("finetune", with_all):
        found[100.0] = result
    return found


def _augmentations(evaluation: Evaluation) -> dict[str, dict[str, str]]:
    """By augmentation, its variants: the strength of each in words."""
    found: dict[str, dict[str, str]] = {}
    for result in evaluation.of("robustness", "invariance"):
        if result.variant != "clean":
            kind = str(result.settings.get("augmentation", result.variant))
            strength = result.settings.get("strength")
            words = "yes" if strength is None else f"{strength:g}"
            found.setdefault(kind, {})[result.variant] = words
    return found


def _bar(axes: Axes, place: int | float, result: Result, colour: str, thick: float) -> None:
    """A horizontal bar in percent, its 95 % interval, and the number at the right."""
    axes.barh(place, 100 * result.value, thick, color=colour)
    ends = [100 * end for end in interval_of(result)]
    axes.plot(ends, [place, place], color=INK, linewidth=0.8, zorder=3)
    edge = axes.get_yaxis_transform()  # x from 0 to 1 across the axes: numbers in one column
    words = {"ha": "right", "va": "center", "fontsize": 7.5}
    axes.text(1.13, place, value_text(result), transform=edge, **words)


def _percent_axis(axes: Axes) -> None:
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("% correct")
    axes.set_xlim(0, 100)


def _panel(axes: Axes, evaluation: Evaluation, kind: str, variants: dict[str, str]) -> None:
    for measure, (words, colour, marker, dashes) in _KINDS.items():
        at = ["clean", *variants]
        found = [(i, r) for i, v in enumerate(at) if (r := evaluation.get(measure, "h", v))]
        where = [i for i, _ in found]
        low, high = np.array([interval_of(r) for _, r in found]).reshape(-1, 2).T
        style = {"marker": marker, "markersize": 3, "linestyle": dashes}
        axes.plot(where, [r.value for _, r in found], color=colour, label=words, **style)
        axes.fill_between(where, low, high, color=colour, alpha=0.2, linewidth=0)
        if found and (chance := found[-1][1].chance) is not None:
            axes.axhline(chance, color=colour, linestyle=":", linewidth=0.9)
    axes.set_title(kind, fontsize=8.5)
    axes.set_xticks(range(len(variants) + 1), ["no", *variants.values()])
    axes.set_xlim(-0.3, len(variants) + 0.3)
    axes.set_ylim(0, 1.04)


def _ylabel(evaluation: Evaluation) -> str:
    return "% balanced accuracy" if evaluation.unbalanced else "% correct"


def _chance(evaluation: Evaluation, along: list[str]) -> float | None:
    """The first that is known."""
    results = [evaluation.leading(probe, tap) for probe in _PROBES for tap in along]
    return next((r.chance for r in results if r is not None and r.chance is not None), None)


def _taps_legend(evaluation: Evaluation, chance: float | None) -> list[Line2D]:
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=4, label=words)
        for probe, (words, colour, marker) in _PROBES.items()
        if evaluation.of(probe)
    ]
    for name, (words, dashes) in _BASELINES.items():
        if any(evaluation.get(probe, name) for probe in _PROBES):
            handles.append(Line2D([], [], color=INK, linestyle=dashes, linewidth=1, label=words))
    if chance is not None:
        handles.append(Line2D([], [], color=MUTED, linewidth=1, label="chance"))
    return handles
