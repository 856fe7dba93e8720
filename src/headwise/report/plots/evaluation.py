"""The figures of one evaluated run: curves and bars."""

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
    finish,
    new_axes,
)
from headwise.report.reading.evaluation import Evaluation, Number

_PROBES = {"linear": ("linear probe", COLOURS[0], "o"), "knn": ("kNN", COLOURS[1], "s")}
_BASELINES: dict[str, tuple[str, Any]] = {
    "pixels": ("raw pixels", ":"),
    "untrained": ("untrained", "--"),
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
    taps = evaluation.taps(_PROBES)
    if len(taps) < 2:
        return None
    figure, axes = new_axes(3.2)
    if "h" in taps and taps[-1] != "h":
        axes.axvspan(taps.index("h"), len(taps) - 0.8, color=MUTED, alpha=0.12, linewidth=0)
        edge = axes.get_xaxis_transform()
        axes.text(
            taps.index("h") + 0.06,
            1.01,
            "projection head",
            transform=edge,
            va="bottom",
            color=MUTED,
        )
    for probe, (_, colour, marker) in _PROBES.items():
        found = [(i, n) for i, tap in enumerate(taps) if (n := evaluation.get(probe, tap))]
        _band(axes, [i for i, _ in found], [n for _, n in found], colour, marker)
        for name, (_, dashes) in _BASELINES.items():
            if number := evaluation.get(probe, name):
                axes.axhline(100 * number.value, color=colour, linestyle=dashes, linewidth=1)
    chance = _chance(evaluation, [f"{probe}/{tap}" for probe in _PROBES for tap in taps])
    if chance is not None:
        axes.axhline(100 * chance, color=MUTED, linewidth=1)
    axes.set_xticks(range(len(taps)), taps)
    axes.set_xlim(-0.2, len(taps) - 0.8)
    axes.grid(False, axis="x")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("% correct")
    figure.legend(handles=_taps_legend(evaluation, chance), loc="outside lower center", ncols=3)
    described = (
        "Accuracy of probes at every tap from the encoder to z, with 95 % bands; "
        "the numbers are in the table below."
    )
    return finish(figure, "taps", "Read at every tap", described)


def transformation_bars(evaluation: Evaluation) -> Drawing | None:
    """Bars of h and z for every transformation, the paper's values as diamonds."""
    tasks = [task for task in TASKS if evaluation.measures(f"transformation_{task}")]
    if not tasks:
        return None
    taps = evaluation.whats(f"transformation_{task}" for task in tasks)
    figure, axes = new_axes(1.2 + 0.22 * len(taps) * len(tasks))
    thick = 0.8 / len(taps)
    for y, task in enumerate(tasks):
        for i, tap in enumerate(taps):
            place = y + (i - (len(taps) - 1) / 2) * thick
            number = evaluation.get(f"transformation_{task}", tap)
            if number is not None:
                _bar(axes, place, number, _TAP_COLOURS[tap], 0.92 * thick)
                if number.chance is not None:
                    ends = [place - thick / 2, place + thick / 2]
                    axes.plot([100 * number.chance] * 2, ends, color=INK, linestyle=":")
            if tap in PAPER[task]:
                axes.plot(100 * PAPER[task][tap], place, zorder=4, clip_on=False, **_DIAMOND)
    axes.set_yticks(range(len(tasks)), tasks)
    _percent_axis(axes)
    handles = [
        *(Line2D([], [], color=_TAP_COLOURS[tap], linewidth=6, label=tap) for tap in taps),
        Line2D([], [], linestyle="", label="SimCLR's table 3", **_DIAMOND),
        Line2D([], [], color=INK, linestyle=":", label="chance"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, columnspacing=1.1)
    described = (
        "How often the transformation is named correctly from h and from z, beside SimCLR's values "
        "and chance; the numbers are in the table below."
    )
    return finish(figure, "transformations", "Which transformation was applied", described)


def semi_curve(evaluation: Evaluation) -> Drawing | None:
    """Accuracy against the share of labels, fine-tuned and from scratch."""
    lines = {
        "fine-tuned from pretraining": _by_share(evaluation, "finetuned", "h"),
        "from scratch": _by_share(evaluation, "scratch", "scratch"),
    }
    shares = sorted({share for line in lines.values() for share in line})
    if not evaluation.measures(r"semi_[\d.]+"):
        return None
    figure, axes = new_axes(2.9)
    for i, (name, line) in enumerate(lines.items()):
        colour, dashes = line_style(i)
        numbers = [line[share] for share in sorted(line)]
        _band(axes, sorted(line), numbers, colour, "os"[i], dashes=dashes, label=name)
    axes.set_xscale("log")
    axes.set_xticks(shares, [f"{share:g} %" for share in shares])
    axes.xaxis.set_minor_locator(FixedLocator([]))
    axes.set_xlabel("of the training labels")
    axes.set_ylabel("% correct")
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
        (words, number)
        for order, words in _ORDERS.items()
        if (number := evaluation.get("leakage_knn", order))
    ]
    if not found:
        return None
    figure, axes = new_axes(0.75 + 0.36 * len(found))
    for y, (_, number) in enumerate(found):
        _bar(axes, y, number, _TAP_COLOURS["z"], 0.6)
    axes.set_yticks(range(len(found)), [words for words, _ in found])
    _percent_axis(axes)
    described = (
        "Accuracy of k-NN on z in shuffled batches, in batches of one class and one by one; "
        "the numbers are in the table below."
    )
    return finish(figure, "leakage", "kNN on z, by batch", described)


def robustness_panels(evaluation: Evaluation) -> Drawing | None:
    """A panel an augmentation: accuracy of h, and its cosine to the h of the image as it is."""
    augmentations: dict[str, list[str]] = {}
    for measure in evaluation.measures(r"(robustness|invariance)_(?!clean)[\w.]+"):
        kind, strength = _strength(measure.partition("_")[2])
        if strength not in augmentations.setdefault(kind, []):
            augmentations[kind].append(strength)
    if not augmentations:
        return None
    rows = -(-len(augmentations) // 3)
    figure = Figure(figsize=(WIDTH_INCHES, 0.45 + 1.15 * rows), layout="constrained")
    panels = figure.subplots(rows, 3, sharey=True, squeeze=False).ravel()
    for axes in panels[len(augmentations) :]:
        axes.set_visible(False)
    for axes, (kind, strengths) in zip(panels, augmentations.items(), strict=False):
        _panel(axes, evaluation, kind, strengths)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    described = (
        "A panel for each augmentation: accuracy of h, and cosine of h to that of the image as it "
        "is, against strength; the numbers are in the table below."
    )
    return finish(figure, "robustness", "What augmentations do to h", described)


def tap_spectra(evaluation: Evaluation) -> Drawing | None:
    """Singular values of the covariance at every tap."""
    taps = evaluation.taps(["rank"])
    values = {tap: evaluation.arrays.get(f"spectrum/rank/{tap}") for tap in taps}
    styles = {tap: line_style(i) for i, tap in enumerate(taps)}
    figure = spectrum_figure(values, styles)
    described = "Normalised singular values of the covariance, a line for each tap."
    if figure is None:
        return None
    return finish(figure, "spectra", "Singular values at every tap", described)


def _band(
    axes: Axes,
    places: list[int] | list[float],
    numbers: list[Number],
    colour: str,
    marker: str,
    *,
    dashes: Any = "-",
    label: str | None = None,
) -> None:
    """A line in percent with its 95 % band."""
    low, high = 100 * np.array([n.interval for n in numbers]).reshape(-1, 2).T
    percents = [100 * n.value for n in numbers]
    axes.plot(
        places, percents, color=colour, marker=marker, markersize=4, linestyle=dashes, label=label
    )
    axes.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)


def _by_share(evaluation: Evaluation, what: str, with_all: str) -> dict[float, Number]:
    """By percent of the labels; all of them are another protocol's."""
    found = {
        float(measure.removeprefix("semi_")): number
        for measure in evaluation.measures(r"semi_[\d.]+")
        if (number := evaluation.get(measure, what))
    }
    if number := evaluation.get("finetune", with_all):
        found[100.0] = number
    return found


def _bar(axes: Axes, place: float | int, number: Number, colour: str, thick: float) -> None:
    """A horizontal bar in percent, its 95 % interval, and the number at the right."""
    axes.barh(place, 100 * number.value, thick, color=colour)
    ends = [100 * end for end in number.interval]
    axes.plot(ends, [place, place], color=INK, linewidth=0.8, zorder=3)
    edge = axes.get_yaxis_transform()  # x from 0 to 1 across the axes: numbers in one column
    axes.text(1.13, place, number.text, transform=edge, ha="right", va="center", fontsize=7.5)


def _percent_axis(axes: Axes) -> None:
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("% correct")
    axes.set_xlim(0, 100)


def _strength(augmentation: str) -> tuple[str, str]:
    """`crop_0.5` as crop and 0.5; `flip` has no strength."""
    kind, _, strength = augmentation.rpartition("_")
    return (kind, strength) if kind and strength[0].isdigit() else (augmentation, "yes")


def _panel(axes: Axes, evaluation: Evaluation, kind: str, strengths: list[str]) -> None:
    for measure, (words, colour, marker, dashes) in _KINDS.items():
        start = evaluation.get(f"{measure}_clean", "h")
        found = [(0, start)] if start else []
        for i, strength in enumerate(strengths, 1):
            name = f"{measure}_{kind}" if strength == "yes" else f"{measure}_{kind}_{strength}"
            if number := evaluation.get(name, "h"):
                found.append((i, number))
        places = [i for i, _ in found]
        low, high = np.array([n.interval for _, n in found]).reshape(-1, 2).T
        values = [n.value for _, n in found]
        axes.plot(
            places, values, color=colour, marker=marker, markersize=3, linestyle=dashes, label=words
        )
        axes.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
        if found and (chance := found[-1][1].chance) is not None:
            axes.axhline(chance, color=colour, linestyle=":", linewidth=0.9)
    axes.set_title(kind, fontsize=8.5)
    axes.set_xticks(range(len(strengths) + 1), ["no", *strengths])
    axes.set_xlim(-0.3, len(strengths) + 0.3)
    axes.set_ylim(0, 1.04)


def _chance(evaluation: Evaluation, names: list[str]) -> float | None:
    found = [number for name in names if (number := evaluation.numbers.get(name))]
    return next((number.chance for number in found if number.chance is not None), None)


def _taps_legend(evaluation: Evaluation, chance: float | None) -> list[Line2D]:
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=4, label=words)
        for probe, (words, colour, marker) in _PROBES.items()
        if evaluation.measures(probe)
    ]
    for name, (words, dashes) in _BASELINES.items():
        if any(evaluation.get(probe, name) for probe in _PROBES):
            handles.append(Line2D([], [], color=INK, linestyle=dashes, linewidth=1, label=words))
    if chance is not None:
        handles.append(Line2D([], [], color=MUTED, linewidth=1, label="chance"))
    return handles
