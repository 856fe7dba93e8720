"""The curves of the fusion lab: along the head's depth, over training, and geometry by tap.

Bands are 95 % t-intervals over batches. Every figure carries its numbers as a table.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from headwise.report.plots.drawing import (
    COLOURS,
    DASHES,
    INK,
    WIDTH_INCHES,
    Drawing,
    Look,
    csv_text,
    finish,
    new_axes,
)
from headwise.report.reading.fusion import FusionArrays, Interval, batch_interval

GEOMETRY = {
    "nn1": ("1-NN, % correct", 100.0),
    "cluster_accuracy": ("clusters, % correct", 100.0),
    "silhouette": ("silhouette", 1.0),
    "rank": ("effective rank", 1.0),
    "between": ("between-class variance", 1.0),
    "alignment": ("alignment", 1.0),
    "uniformity": ("uniformity", 1.0),
}
"""Measures of a tap: their words, and what to multiply with."""

_TRAINING = {
    "gain": "fusion gain",
    "gain_h": "fusion gain, h at equal entropy",
    "twin_mass": "twin mass",
    "nn1_h": "1-NN",
}
_PANEL_POINTS = 7.5
"""Size of words in small panels."""
_NUMBERS = ("mean", "low", "high")


TRAINED = Look("trained", COLOURS[0], "-", "o")
UNTRAINED = Look("untrained", COLOURS[6], DASHES[1], "s")
UNIFORM = Look("uniform attention", COLOURS[1], DASHES[3], "^")
OF_H = Look("h at equal entropy", COLOURS[1], DASHES[3], "^")
OF_INPUT = Look("input rows at equal entropy", COLOURS[3], DASHES[2], "v")
HEADS = Look("one attention head", COLOURS[5], "", "o")
OTHERS = Look("other blocks", COLOURS[5])
PERMUTED = Look("permuted labels, 95 %", COLOURS[2])


@dataclass(frozen=True)
class Line:
    """Means along an axis, with their band."""

    values: Interval
    look: Look
    scale: float = 1.0

    def draw(self, axes: Axes, places: np.ndarray, size: float = 4.0) -> Line2D:
        look = self.look
        mean, low, high = (self.scale * end for end in self.values)
        axes.fill_between(places, low, high, color=look.colour, alpha=0.2, linewidth=0)
        style = {"linestyle": look.dashes, "marker": look.marker, "markersize": size}
        return axes.plot(places, mean, color=look.colour, label=look.label, **style)[0]

    def rows(self, *first: Any, places: Sequence[Any]) -> Iterator[list[Any]]:
        """Of the table: `first`, the place, the line's name and its numbers, not scaled."""
        for place, *numbers in zip(places, *self.values, strict=True):
            yield [*first, place, self.look.label, *numbers]


def gain_by_depth(fusion: FusionArrays) -> Drawing | None:
    """Fusion gain after each block, with every control; attention heads are dots."""
    looks = {
        "layer_gain": TRAINED,
        "layer_gain_untrained": UNTRAINED,
        "layer_gain_h": OF_H,
        "layer_gain_input": OF_INPUT,
    }
    lines = _lines(fusion, looks)
    if not lines:
        return None
    figure, axes = new_axes(3.5)
    places = np.arange(len(fusion.block_taps))
    handles: list[Artist] = [line.draw(axes, places) for line in lines]
    handles += _dots(axes, fusion, "gain")
    handles.append(axes.axhline(1, color=INK, linewidth=0.9, label="uniform attention: 1"))
    permuted = fusion.get("layer_gain_permuted")
    if permuted is not None:
        null = Interval(permuted.mean(1), *np.quantile(permuted, [0.025, 0.975], axis=1))
        style = {"color": PERMUTED.colour, "alpha": 0.4, "linewidth": 0, "label": PERMUTED.label}
        handles.append(axes.fill_between(places, null.low, null.high, **style))
        lines.append(Line(null, PERMUTED))
    tap_axis(axes, fusion.block_taps)
    axes.set_ylabel("fusion gain")
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    described = (
        "Fusion gain after each block of the head with 95 % bands, trained and under every "
        "control, and of each attention head as a dot. 1 is no preference for one's own class."
    )
    rows = [row for line in lines for row in line.rows("all", places=fusion.block_taps)]
    rows += _head_rows(fusion, "gain")
    table = csv_text(["head", "tap", "series", *_NUMBERS], rows)
    return finish(figure, "fusion-gain", "Fusion gain by depth", described, table)


def mass_by_depth(fusion: FusionArrays) -> Drawing | None:
    """How much attention goes to the twin and to oneself, trained and untrained."""
    kinds = {"twin_mass": "to the twin", "self_mass": "to itself"}
    if all(fusion.interval(name) is None for name in kinds):
        return None
    figure = Figure(figsize=(WIDTH_INCHES, 2.8), layout="constrained")
    places = np.arange(len(fusion.block_taps))
    rows: list[list[Any]] = []
    handles: list[Artist] = []
    for axes, (name, words) in zip(figure.subplots(1, 2, sharey=True), kinds.items(), strict=True):
        lines = _lines(fusion, {name: TRAINED, f"{name}_untrained": UNTRAINED}, 100.0)
        handles = [line.draw(axes, places) for line in lines] + _dots(axes, fusion, name, 100.0)
        for line in lines:
            rows += line.rows(words, "all", places=fusion.block_taps)
        rows += [[words, *row] for row in _head_rows(fusion, name)]
        tap_axis(axes, fusion.block_taps, most=6)
        axes.set_title(words, fontsize=8.5)
    figure.axes[0].set_ylabel("% of attention")
    figure.axes[0].set_ylim(bottom=0)
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    described = (
        "Share of attention that a view gives to its twin and to itself after each block, mean "
        "over attention heads with 95 % bands, and each attention head as a dot."
    )
    table = csv_text(["mass", "head", "tap", "series", *_NUMBERS], rows)
    return finish(figure, "fusion-twin-mass", "Attention to twin and self", described, table)


def over_training(fusion: FusionArrays) -> Drawing | None:
    """Gain of every block at every kept checkpoint, with the control of the one that is strongest
    in the end; below, how separable h was by then."""
    epochs, gain = fusion.get("training_epochs"), fusion.interval("training_gain", 1)
    if epochs is None or gain is None:
        return None
    best = int(np.nan_to_num(gain.mean[-1], nan=-np.inf).argmax())
    figure = Figure(figsize=(WIDTH_INCHES, 4.3), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1.7, 1))
    others = [i for i in range(len(fusion.block_taps)) if i != best]
    for i in others:
        upper.plot(epochs, gain.mean[:, i], color=OTHERS.colour, linewidth=0.9)
    strongest = replace(TRAINED, label=f"{fusion.block_taps[best]}, the strongest")
    lines = [Line(_block(gain, best), strongest)]
    if (of_h := fusion.interval("training_gain_h", 1)) is not None:
        lines.append(Line(_block(of_h, best), OF_H))
    handles: list[Artist] = [line.draw(upper, epochs) for line in lines]
    if others:
        handles.append(Line2D([], [], color=OTHERS.colour, linewidth=0.9, label=OTHERS.label))
    if (fresh := fusion.interval("training_gain_untrained")) is not None:
        style = {"color": UNTRAINED.colour, "linestyle": UNTRAINED.dashes, "label": UNTRAINED.label}
        handles.append(upper.axhline(fresh.mean[best], **style))
    handles.append(upper.axhline(1, color=INK, linewidth=0.9, label="uniform attention: 1"))
    upper.set_ylabel("fusion gain")
    if (nn1 := fusion.interval("training_nn1_h", 1)) is not None:
        Line(nn1, Look("h", COLOURS[2], "-", "D"), 100.0).draw(lower, epochs)
    lower.set(xlabel="epoch", ylabel="1-NN of h, %")
    lower.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    described = (
        "Above: fusion gain of every block against epoch, of the strongest with its 95 % band and "
        "its controls. Below: leave-one-out 1-NN accuracy of h at the same checkpoints."
    )
    table = _training_table(fusion)
    return finish(figure, "fusion-training", "Fusion over training", described, table)


def geometry_by_tap(fusion: FusionArrays) -> Drawing | None:
    """A panel a measure, along the head: trained, with uniform attention, untrained."""
    measures = [name for name in GEOMETRY if fusion.interval(name) is not None]
    if not measures:
        return None
    count = -(-len(measures) // 2)
    figure = Figure(figsize=(WIDTH_INCHES, 0.5 + 1.3 * count), layout="constrained")
    panels = figure.subplots(count, 2, squeeze=False).ravel()
    rows: list[list[Any]] = []
    handles: dict[str, Artist] = {}
    for axes, name in zip(panels, measures, strict=False):
        words, scale = GEOMETRY[name]
        looks = {name: TRAINED, f"{name}_uniform": UNIFORM, f"{name}_untrained": UNTRAINED}
        for line in _lines(fusion, looks, scale):
            handles[line.look.label] = line.draw(axes, np.arange(len(fusion.taps)), size=2.5)
            rows += line.rows(name, places=fusion.taps)
        axes.set_title(words, fontsize=_PANEL_POINTS)
        axes.tick_params(labelsize=_PANEL_POINTS)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        tap_axis(axes, fusion.taps, most=7)
    for axes in panels[len(measures) :]:
        axes.set_visible(False)
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=3)
    described = (
        "Geometry of the rows at every tap from h to z with 95 % bands: trained, with uniform "
        "attention in place of the learned one, and untrained; a panel for each measure."
    )
    table = csv_text(["measure", "tap", "series", *_NUMBERS], rows)
    return finish(figure, "fusion-geometry", "Geometry at every tap", described, table)


def _lines(fusion: FusionArrays, looks: dict[str, Look], scale: float = 1.0) -> list[Line]:
    """Of the arrays that are there; of [B L H] the mean over attention heads."""
    found = {name: fusion.get(name) for name in looks if fusion.interval(name) is not None}
    return [
        Line(batch_interval(values.mean(2) if values.ndim == 3 else values), looks[name], scale)
        for name, values in found.items()
        if values is not None
    ]


def _dots(axes: Axes, fusion: FusionArrays, name: str, scale: float = 1.0) -> list[Artist]:
    """Attention heads side by side above their block; none where it has but one."""
    values = fusion.interval(name)
    if values is None or values.mean.shape[1] < 2:
        return []
    blocks, heads = values.mean.shape
    places = np.arange(blocks)[:, None] + np.linspace(-0.25, 0.25, heads)
    style = {"color": HEADS.colour, "marker": HEADS.marker, "label": HEADS.label}
    return [axes.scatter(places, scale * values.mean, s=7, linewidths=0, zorder=1.5, **style)]


def _head_rows(fusion: FusionArrays, name: str) -> list[list[Any]]:
    """Of the table: every attention head of every block."""
    values = fusion.interval(name)
    if values is None:
        return []
    return [
        [head + 1, tap, TRAINED.label, *(end[block, head] for end in values)]
        for block, tap in enumerate(fusion.block_taps)
        for head in range(values.mean.shape[1])
    ]


def _training_table(fusion: FusionArrays) -> str:
    """Everything that was measured at checkpoints, also what the figure leaves out."""
    rows: list[list[Any]] = []
    for name, words in _TRAINING.items():
        values = fusion.interval(f"training_{name}", 1)
        if values is not None:
            taps = ["h"] if values.mean.ndim == 1 else fusion.block_taps
            means, lows, highs = (end.reshape(-1, len(taps)) for end in values)
            for epoch, *ends in zip(
                fusion.arrays["training_epochs"], means, lows, highs, strict=True
            ):
                rows += Line(Interval(*ends), Look(words)).rows(epoch, places=taps)
    if (fresh := fusion.interval("training_gain_untrained")) is not None:
        rows += Line(fresh, Look("fusion gain, untrained")).rows("", places=fusion.block_taps)
    return csv_text(["epoch", "tap", "series", *_NUMBERS], rows)


def _block(values: Interval, block: int) -> Interval:
    return Interval(*(end[:, block] for end in values))


def tap_axis(axes: Axes, taps: list[str], most: int = 12) -> None:
    """As many names as fit, the first and the last among them."""
    shown = list(range(0, len(taps), -(-len(taps) // most)))
    shown[-1] = len(taps) - 1 if len(shown) > 1 else 0
    axes.set_xticks(shown, [taps[i] for i in shown])
    axes.grid(False, axis="x")
