"""Pictures of attention between label-sorted images, and the path of tokens through the blocks."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.figure import Figure

from headwise.report.plots.drawing import (
    MUTED,
    WIDE_INCHES,
    WIDTH_INCHES,
    Drawing,
    csv_text,
    finish,
)
from headwise.report.plots.maps import LEGEND_CLASSES, class_handle, class_style
from headwise.report.reading.fusion import FusionArrays

WIDE_HEADS = 8
"""With more attention heads than this their grid takes the width of the page."""
_PANEL_INCHES = 1.2
"""Side of a panel of that grid at most."""
MASKED = "#000000"
"""Of self and twin where they are left out: cividis has no black, and it draws no eye."""
_RANGE = 1e3
"""From the least to the largest value that have colours of their own, at most."""
_SHADES = 32
"""As many as the eye tells apart; 256 take four times the bytes."""

Panels = Float[np.ndarray, "panels s s"]


def head_grid(fusion: FusionArrays, *, masked: bool) -> Drawing | None:
    """Attention from image to image: a row of panels a block, a column an attention head."""
    maps = fusion.get("maps")
    if maps is None:
        return None
    (blocks, heads, rows, _), views = maps.shape, int(fusion.arrays["views"])
    size = rows // views
    by_view = maps.reshape(blocks * heads, views, size, views, size)
    panels = by_view.sum(3).mean(1)  # over the twins attended to, and over those attending
    if masked:
        panels = _without_self_and_twin(panels, size)
    width = WIDE_INCHES if heads > WIDE_HEADS else WIDTH_INCHES
    side = min(_PANEL_INCHES, (width - 0.4) / heads)
    figure = Figure(figsize=(width, 0.9 + side * blocks), layout="constrained")
    axes = figure.add_subplot()
    labels = fusion.arrays["map_labels"][:size]
    shares = panels * int(fusion.arrays["batch_size"])
    places = _mosaic(axes, shares, labels, columns=heads)
    axes.set_yticks(places[::heads, 1], fusion.block_taps)
    axes.set_xticks(places[:heads, 0], [str(1 + head) for head in range(heads)], fontsize=7.5)
    axes.set_xlabel("attention head")
    described = (
        f"Attention from image to image, {size} images sorted by class: a row of panels for each "
        f"block, a column for each attention head. {_mask_words(masked)} White "
        "frames: images of one class."
    )
    names = [[tap, head] for tap in fusion.block_taps for head in range(1, heads + 1)]
    table = _table(["tap", "head"], names, panels, fusion.class_names(labels))
    title = f"Every attention head, {_which(masked)}"
    return finish(figure, f"fusion-heads-{_stem(masked)}", title, described, table)


def block_grid(fusion: FusionArrays, *, masked: bool) -> Drawing | None:
    """Attention from view to view, mean over attention heads: a panel a block."""
    maps = fusion.get("maps")
    if maps is None:
        return None
    panels = maps.mean(1)
    (blocks, rows, _), views = panels.shape, int(fusion.arrays["views"])
    if masked:
        panels = _without_self_and_twin(panels, rows // views)
    columns = min(blocks, 2 if blocks <= 4 else 3)
    gap, lines = 0.15, -(-blocks // columns)
    height = 0.7 + (WIDTH_INCHES - 0.1) * lines * (1 + gap) / (columns + gap * (columns - 1))
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    axes = figure.add_subplot()
    shares = panels * int(fusion.arrays["batch_size"]) * views
    places = _mosaic(axes, shares, fusion.arrays["map_labels"], columns=columns, gap=gap)
    axes.set(xticks=[], yticks=[], ylim=(axes.get_ylim()[0], -gap * rows))
    for (x, y), tap in zip(places, fusion.block_taps, strict=True):
        axes.text(x, y - 0.52 * rows, tap, ha="center", va="bottom")
    described = (
        "Attention from view to view, mean over attention heads, a panel for each block: first "
        "all first views sorted by class, then their twins in the same order. "
        f"{_mask_words(masked)} White frames: images of one class."
    )
    names = [[tap] for tap in fusion.block_taps]
    table = _table(["tap"], names, panels, fusion.class_names(fusion.arrays["map_labels"]))
    title = f"Mean over attention heads, {_which(masked)}"
    return finish(figure, f"fusion-blocks-{_stem(masked)}", title, described, table)


def token_path(fusion: FusionArrays) -> Drawing | None:
    """Where the same tokens are after each block, in one plane: a panel a tap."""
    path = fusion.get("path")
    if path is None:
        return None
    taps, labels = fusion.arrays["path_taps"].tolist(), fusion.arrays["path_labels"]
    views = int(fusion.arrays["views"])
    columns = 3 if len(taps) <= 9 else 4
    present, places = np.unique(labels, return_inverse=True)  # colours go by place among them
    named = len(present) <= LEGEND_CLASSES
    lines = -(-len(taps) // columns)
    height = lines * (WIDTH_INCHES / columns + 0.14) + (0.2 * -(-len(present) // 3) if named else 0)
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in panels[len(taps) :]:
        axes.set_visible(False)
    low, high = path.min(1), path.max(1)
    reach = 0.54 * (float((high - low).max()) or 1.0)
    for axes, tap, points, middle in zip(panels, taps, path, (low + high) / 2, strict=False):
        _tokens(axes, points, places, views)
        axes.set_title(tap, fontsize=8.5)
        (left, bottom), (right, top) = middle - reach, middle + reach
        axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], aspect="equal")
    if named:
        handles = [class_handle(i, name) for i, name in enumerate(fusion.class_names(present))]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, handletextpad=0.2)
    described = (
        f"The rows of {len(labels) // views} images after each tap of the blocks' width, in the "
        "plane of one PCA over all taps, in one scale, each panel around its own middle; coloured "
        "by class, a thin line joins twins."
    )
    names = fusion.class_names(labels)
    rows = (
        [tap, view, image, names[row], *points[row]]
        for tap, points in zip(taps, path, strict=True)
        for row, (view, image) in enumerate(np.ndindex(views, len(labels) // views))
    )
    table = csv_text(["tap", "view", "image", "class", "x", "y"], rows)
    return finish(figure, "fusion-path", "Path of the tokens", described, table)


def _tokens(
    axes: Axes,
    points: Float[np.ndarray, "rows 2"],
    places: Int[np.ndarray, " rows"],
    views: int,
) -> None:
    twins = points.reshape(views, -1, 2).swapaxes(0, 1)
    axes.add_collection(LineCollection(list(twins), colors=MUTED, linewidths=0.6, alpha=0.6))
    for place in np.unique(places):
        colour, marker = class_style(int(place))
        here = points[places == place]
        axes.scatter(*here.T, s=8, color=colour, marker=marker, linewidths=0, alpha=0.9, zorder=2)
    axes.grid(False)
    axes.spines[:].set_visible(True)


def _without_self_and_twin(panels: Panels, size: int) -> Panels:
    image = np.arange(panels.shape[-1]) % size
    return np.where(image[:, None] == image, np.nan, panels)


def _mosaic(
    axes: Axes,
    panels: Panels,
    labels: Int[np.ndarray, " s"],
    *,
    columns: int,
    gap: float = 0.08,
) -> Float[np.ndarray, "panels 2"]:
    """Draw panels row by row as one picture, `gap` sides apart, in one logarithmic scale, with
    frames around what is between images of one class; the middle of each panel."""
    side = panels.shape[-1]
    step = side + max(1, round(gap * side))
    corners = np.array([divmod(i, columns) for i in range(len(panels))])[:, ::-1] * step
    norm = _scale(panels)
    shades = colormaps["cividis"].resampled(_SHADES)
    colours = shades(norm(np.nan_to_num(panels).ravel()).filled(0)).reshape(*panels.shape, 4)
    colours[np.isnan(panels)] = (*to_rgb(MASKED), 1)
    canvas = np.zeros((*(corners.max(0)[::-1] + side), 4))
    for (x, y), picture in zip(corners, colours, strict=True):
        canvas[y : y + side, x : x + side] = picture
    axes.imshow((255 * canvas).round().astype(np.uint8), interpolation="none")
    axes.plot(*_class_frames(corners, labels).T, color="#ffffff", linewidth=0.3, alpha=0.7)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    _colour_bar(axes, ScalarMappable(norm, shades))
    return corners + (side - 1) / 2


def _colour_bar(axes: Axes, colours: ScalarMappable) -> None:
    low, high = colours.get_clim()
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))))
    ticks = [n * 10.0**e for e in decades for n in (1, 2, 5) if low <= n * 10.0**e <= high]
    where = {"location": "bottom", "shrink": 0.8, "aspect": 40, "pad": 0.02}
    bar = axes.figure.colorbar(colours, ax=axes, **where)
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.minorticks_off()
    bar.outline.set_visible(False)
    assert bar.solids is not None
    bar.solids.set_edgecolor("face")  # otherwise browsers show seams between the shades
    bar.set_label("attention ÷ its mean over the batch, log scale")


def _scale(panels: Panels) -> LogNorm:
    """All but the outermost values: none of them is the colour of a single field."""
    seen = panels[panels > 0]
    if not len(seen):
        return LogNorm(0.1, 10)
    low, high = np.quantile(seen, [0.02, 0.998])
    return LogNorm(max(low, high / _RANGE) if low < high else high / 2, high)


def _class_frames(
    corners: Int[np.ndarray, "panels 2"], labels: Int[np.ndarray, " s"]
) -> Float[np.ndarray, "points 2"]:
    """Around every run of equal labels against every other of the same class, in every panel; NaN
    between two frames."""
    edges = np.flatnonzero(np.diff(labels, prepend=labels[0] - 1, append=labels[-1] + 1)) - 0.5
    runs = [(low, high, labels[int(low + 0.5)]) for low, high in pairwise(edges)]
    frames = [
        [[left, top], [right, top], [right, bottom], [left, bottom], [left, top], [np.nan] * 2]
        for left, right, one in runs
        for top, bottom, other in runs
        if one == other
    ]
    return (corners[:, None, None] + np.array(frames)).reshape(-1, 2)


def _table(columns: list[str], names: list[list[Any]], panels: Panels, classes: list[str]) -> str:
    """A row of weights a line, as they are: not divided by their mean."""
    rows: Iterator[list[Any]] = (
        [*name, i, classes[i], *("" if np.isnan(w) else f"{w:.3g}" for w in weights)]
        for name, panel in zip(names, panels, strict=True)
        for i, weights in enumerate(panel)
    )
    return csv_text([*columns, "row", "class", *range(len(classes))], rows)


def _mask_words(masked: bool) -> str:
    return "Self and twin are left out." if masked else "Self and twin are shown."


def _which(masked: bool) -> str:
    return "self and twin left out" if masked else "with self and twin"


def _stem(masked: bool) -> str:
    return "masked" if masked else "unmasked"
