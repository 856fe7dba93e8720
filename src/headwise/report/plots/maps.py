"""The map of h: every image a point in two dimensions, and some images drawn as themselves."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from PIL import Image

from headwise.files import safe_name
from headwise.report.plots.drawing import COLOURS, MUTED, PAPER, Drawing, finish, new_axes
from headwise.report.reading.comparison import ComparedRun

CANVAS_PX = 720
THUMBNAIL_PX = 38
BORDER_PX = 2
GAP_PX = 8
"""Least distance between two thumbnails."""
MARKERS = ("o", "s", "^", "D")
LEGEND_CLASSES = 16
"""With more classes than this colours and marks repeat too often for a legend to help."""


def class_map(run: ComparedRun, classes: Sequence[str]) -> Drawing | None:
    """The run's map, coloured and marked by class where there are labels."""
    points, labels = run.arrays.get("map"), run.arrays.get("map_labels")
    if points is None or not len(points):
        return None
    labels = np.full(len(points), -1) if labels is None else labels
    named = len(classes) <= LEGEND_CLASSES and bool((labels >= 0).any())
    figure, axes = new_axes(4.15 + (0.2 * -(-len(classes) // 3) if named else 0))
    unit = _to_unit_square(points)
    for label in np.unique(labels):
        colour, marker = class_style(int(label))
        here = unit[labels == label]
        axes.scatter(*here.T, s=9, color=colour, marker=marker, linewidths=0, alpha=0.85)
    thumbnails = run.arrays.get("map_thumbnails")
    if thumbnails is not None:
        canvas = thumbnail_canvas(unit, labels, thumbnails)
        axes.imshow(canvas, extent=(0, 1, 0, 1), zorder=3, interpolation="none")
    _frame(axes)
    if named:
        handles = [class_handle(i, name) for i, name in enumerate(classes) if (labels == i).any()]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, handletextpad=0.2)
    described = f"A point for each of {len(points)} images, placed by h under {run.head}."
    return finish(figure, f"map-{safe_name(run.head)}", run.head, described)


def thumbnail_canvas(unit: np.ndarray, labels: np.ndarray, thumbnails: np.ndarray) -> np.ndarray:
    """A transparent square, uint8 [CANVAS_PX, CANVAS_PX, 4], with those thumbnails that fit.

    Thumbnails stand at their points `unit` [m, 2] (0 to 1, upwards), first come first served,
    none nearer than `GAP_PX` to another, each with a border in the colour of its class.
    """
    canvas = np.zeros((CANVAS_PX, CANVAS_PX, 4), dtype=np.uint8)
    taken = np.empty((0, 2), dtype=int)
    corners = np.stack([unit[:, 0], 1 - unit[:, 1]], axis=1) * CANVAS_PX - THUMBNAIL_PX / 2
    corners = corners.round().astype(int).clip(0, CANVAS_PX - THUMBNAIL_PX)
    for corner, label, thumbnail in zip(corners, labels, thumbnails, strict=True):
        if (np.abs(taken - corner).max(axis=1) < THUMBNAIL_PX + GAP_PX).any():
            continue
        taken = np.vstack([taken, corner])
        x, y = corner
        canvas[y : y + THUMBNAIL_PX, x : x + THUMBNAIL_PX] = _framed(thumbnail, int(label))
    return canvas


def class_style(label: int) -> tuple[str, str]:
    """Colour and marker of a class; -1 is unlabelled."""
    if label < 0:
        return MUTED, "o"
    return COLOURS[label % len(COLOURS)], MARKERS[label // len(COLOURS) % len(MARKERS)]


def _framed(thumbnail: np.ndarray, label: int) -> np.ndarray:
    tile = np.full((THUMBNAIL_PX, THUMBNAIL_PX, 4), 255, dtype=np.uint8)
    tile[..., :3] = (255 * np.array(to_rgb(class_style(label)[0]))).astype(np.uint8)
    inner = THUMBNAIL_PX - 2 * BORDER_PX
    picture = Image.fromarray(thumbnail).resize((inner, inner), Image.Resampling.LANCZOS)
    tile[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX, :3] = np.asarray(picture)
    return tile


def _to_unit_square(points: np.ndarray) -> np.ndarray:
    """The same scale on both axes, so that distances keep their proportions."""
    middle = (points.min(0) + points.max(0)) / 2
    extent = float(np.ptp(points, axis=0).max()) or 1.0
    return 0.5 + 0.92 * (points - middle) / extent


def _frame(axes: Axes) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[], aspect="equal", facecolor=PAPER)
    axes.grid(False)
    axes.spines[:].set_visible(True)


def class_handle(label: int, name: str) -> Line2D:
    colour, marker = class_style(label)
    short = name if len(name) <= 16 else f"{name[:15]}…"
    return Line2D([], [], color=colour, marker=marker, linestyle="", markersize=5, label=short)
