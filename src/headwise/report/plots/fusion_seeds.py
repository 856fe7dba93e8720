"""A head's excess over its controls, by depth, over seeds."""

from typing import Any

import numpy as np
from matplotlib.artist import Artist

from headwise.fusion.over_seeds import BlockOverSeeds, HeadOverSeeds, OverSeeds
from headwise.report.plots.drawing import COLOURS, INK, Drawing, csv_text, finish, new_axes
from headwise.report.plots.fusion import OF_H, OF_INPUT, UNTRAINED, Line, tap_axis
from headwise.report.reading.fusion import Interval


def excess_by_depth(found: HeadOverSeeds) -> Drawing:
    """The excess of each block over each control with its interval; seeds as dots for h."""
    figure, axes = new_axes(3.3)
    blocks, taps = found.blocks, [block.tap for block in found.blocks]
    places = np.arange(len(taps))
    lines = [
        Line(_along([block.untrained for block in blocks]), UNTRAINED),
        Line(_along([block.h for block in blocks]), OF_H),
        Line(_along([block.input for block in blocks]), OF_INPUT),
    ]
    handles: list[Artist] = [line.draw(axes, places) for line in lines]
    by_seed = np.array([block.h.by_seed for block in blocks])
    style = {"color": COLOURS[5], "s": 9, "label": "h, one seed"}
    beside = places[:, None] + np.linspace(-0.15, 0.15, by_seed.shape[1])
    handles.append(axes.scatter(beside, by_seed, linewidths=0, zorder=1.5, **style))
    axes.axhline(0, color=INK, linewidth=0.9)
    tap_axis(axes, taps)
    axes.set_ylabel("gain minus that of the control")
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    described = (
        "Excess of the fusion gain over each control after each block, with 95 % intervals over "
        "seeds and batches; the excess over h of each seed as a dot. 0 is no excess."
    )
    rows = [row for block in blocks for row in _rows(block)]
    table = csv_text(["tap", "control", "seed number", "mean", "low", "high"], rows)
    return finish(figure, "fusion-seeds", "Excess over the controls by depth", described, table)


def _along(values: list[OverSeeds]) -> Interval:
    ends = [(over.mean, *(over.interval or (np.nan, np.nan))) for over in values]
    return Interval(*np.array(ends).T)


def _rows(block: BlockOverSeeds) -> list[list[Any]]:
    """Of the table: over all seeds, then seed by seed in the order of the runs."""
    rows: list[list[Any]] = []
    for look, over in ((UNTRAINED, block.untrained), (OF_H, block.h), (OF_INPUT, block.input)):
        low, high = over.interval or ("", "")
        rows.append([block.tap, look.label, "all", over.mean, low, high])
        rows += [
            [block.tap, look.label, i, value, "", ""] for i, value in enumerate(over.by_seed, 1)
        ]
    return rows
