"""The figures of a study: lines and bars over its axes with a paper's values, and what is said of
them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from headwise.report.plots.drawing import (
    COLOURS,
    DASHES,
    INK,
    MUTED,
    WIDTH_INCHES,
    Drawing,
    Look,
    csv_text,
    finish,
)
from headwise.report.plots.study_grids import crowded, heatmaps
from headwise.report.reading.study import Figure as Wanted
from headwise.report.reading.study import StudyFindings
from headwise.report.reading.study_points import Point, Series, Shown, number_of, shown
from headwise.report.tables.measures import axis_words, measure_words, stem_words
from headwise.report.tables.numbers import number_text
from headwise.report.words import counted, listed, sentence_case

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_PANEL_INCHES = 2.6
_ALPHAS = (0.85, 0.45, 0.25)
"""Of the bars of several measures."""
_LOGARITHMIC_FROM = 4
"""Numbers that span more than this factor have a logarithmic axis."""


def draw(findings: StudyFindings, wanted: Wanted) -> Drawing:
    """One figure of a study, with its numbers as CSV. Call within `style()`."""
    found = shown(findings, wanted)
    return finish(picture(found), wanted.name, wanted.title, caption(found), _table(found))


def picture(found: Shown) -> Figure:
    """The figure before it is rendered."""
    match found.figure.kind:
        case "lines":
            return _stacked(found, _lines)
        case "bars":
            return _stacked(found, _bars)
        case "heatmap":
            return heatmaps(found)


def caption(found: Shown) -> str:
    """What is to be seen: measures, errors, the paper's values, and what is missing."""
    figure, said = found.figure, []
    measures = ", ".join(map(measure_words, figure.measures))
    axes = " and ".join(filter(None, (figure.along, figure.by)))
    at = ", ".join(f"{axis} {level}" for axis, level in figure.levels.items())
    said.append(f"{sentence_case(measures)}, by {axes}{f', at {at}' if at else ''}")
    if found.averaged > 1:
        said.append(f"each value is the mean of up to {found.averaged} arms")
    if figure.kind == "heatmap":
        said += ["last column: the mean of each row"] if found.square else []
        said += [f"lowest panel: {figure.paper_source}"] if found.paper else []
    else:
        bands = "bands" if figure.kind == "lines" else "error bars"
        points = [point for one in found.series for point in one.all_points]
        known = any(point.plus_minus is not None for point in points)
        said += [f"{bands}: 95 % intervals"] if known else []
        said += ["dots: single seeds"] if any(point.scattered for point in points) else []
        plain = listed(list(dict.fromkeys(one.by for one in found.series if one.throughout)))
        said += [f"level line: {plain}, without {figure.along}"] if plain else []
        side = ", right axis" if figure.kind == "lines" else ", top axis"
        paper = f"hollow: {figure.paper_source}{'' if found.same_data else side}"
        said += [paper] if found.paper else []
    if found.missing:
        said.append(f"{counted(found.missing, 'place')} without a finished run left blank")
    return "; ".join(said) + "."


def _stacked(found: Shown, fill: Callable[[Axes, Shown, list[Series]], None]) -> Figure:
    """A panel for each unit, one above the other, with one legend."""
    panels, heights = found.panels, []
    for panel in panels:
        bars = 0.7 + max(0.32, 0.17 * len(panel)) * len(found.along)
        bars += 0 if _beside(found, panel) else 0.4
        heights.append(_PANEL_INCHES if found.figure.kind == "lines" else bars)
    handles = _handles(found)
    longest = max((len(str(handle.get_label())) for handle in handles), default=0)
    columns = 3 if longest < 16 else 2 if longest < 26 else 1
    inches = sum(heights) + 0.17 * (1 + -(-len(handles) // columns))
    figure = Figure(figsize=(WIDTH_INCHES, inches), layout="constrained")
    ratios = {"height_ratios": heights}
    stacked = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw=ratios)[:, 0]
    for axes, panel in zip(stacked, panels, strict=True):
        fill(axes, found, panel)
    if handles:
        title = found.figure.by or None
        where: dict[str, Any] = {"ncols": columns, "title_fontsize": 8.5}
        figure.legend(handles=handles, title=title, loc="outside lower center", **where)
    return figure


def _beside(found: Shown, panel: list[Series]) -> bool:
    """Whether the paper's values, if any, stand on the axis of the study's."""
    return found.same_data or not any(one.paper for one in panel)


def _lines(axes: Axes, found: Shown, panel: list[Series]) -> None:
    unit = found.units[panel[0].measure]
    places, scale = _places(axes, found), _scale(unit)
    other = _paper_axes(axes, found, panel)
    for one in panel:
        look = _look(found, one)
        means, halves = np.full((2, len(places)), np.nan)
        for i, point in enumerate(map(one.at, found.along)):
            if point is None:
                continue
            means[i] = scale * point.mean
            halves[i] = np.nan if point.plus_minus is None else scale * point.plus_minus
            if point.scattered:
                seeds = scale * np.array([*point.by_seed.values()])
                axes.scatter(
                    np.full(len(seeds), places[i]), seeds, s=6, linewidths=0, c=look.colour
                )
        ends = (means - halves, means + halves)
        axes.fill_between(places, *ends, color=look.colour, alpha=0.18, linewidth=0)
        style = {"color": look.colour, "linestyle": look.dashes, "marker": look.marker}
        axes.plot(places, means, markersize=4, label=look.label, **style)
        for x, level in zip(places, found.along, strict=True):
            if level in one.paper:
                other.plot(x, one.paper[level], **_hollow(look.colour, look.marker or "o"))
    axes.set_xlabel(found.figure.along)
    axes.set_ylabel(axis_words(unit, [one.measure for one in panel]))


def _bars(axes: Axes, found: Shown, panel: list[Series]) -> None:
    """Horizontal, so that names have room and every value is written."""
    unit = found.units[panel[0].measure]
    scale, thick = _scale(unit), 0.84 / len(panel)
    other = _paper_axes(axes, found, panel)
    edge = axes.get_yaxis_transform()  # x from 0 to 1 across the axes: numbers in one column
    for i, one in enumerate(panel):
        look, alpha = _look(found, one), _alpha(found, one)
        for y, level in enumerate(found.along):
            place, point = y + (i - (len(panel) - 1) / 2) * thick, one.at(level)
            if point is not None:
                x = scale * point.mean
                axes.barh(place, x, 0.9 * thick, color=look.colour, alpha=alpha)
                _error(axes, place, point, scale)
                text = number_text(unit, point.mean)
                axes.text(1.01, place, text, transform=edge, va="center", fontsize=7)
            if level in one.paper:
                other.plot(one.paper[level], place, **_hollow(INK, "D"))
    axes.set_yticks(range(len(found.along)), found.along)
    axes.set_ylim(len(found.along) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_ylabel(found.figure.along)
    axes.set_xlabel(axis_words(unit, [one.measure for one in panel]))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if other is not axes:
        other.set_xlim(0, 1.05 * max(other.get_xlim()[1], 0))  # from 0, as the bars


def _error(axes: Axes, place: float, point: Point, scale: float) -> None:
    """Its interval, or the seeds themselves."""
    if point.plus_minus is not None:
        x, half = scale * point.mean, scale * point.plus_minus
        axes.errorbar(x, place, xerr=half, color=INK, elinewidth=0.8)
    elif point.scattered:
        seeds = scale * np.array([*point.by_seed.values()])
        axes.scatter(seeds, np.full(len(seeds), place), s=5, color=INK, linewidths=0, zorder=3)


def _places(axes: Axes, found: Shown) -> list[float]:
    """Where each level stands along x: logarithmic for numbers that span enough, else one after
    another."""
    numbers = [number_of(level) for level in found.along]
    known = [number for number in numbers if number is not None]
    places = [float(i) for i in range(len(numbers))]
    if len(known) == len(numbers) and max(known) > _LOGARITHMIC_FROM * min(known):
        axes.set_xscale("log")
        places = known
    axes.set_xticks(places, found.along, rotation=90 if crowded(found.along) else 0)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(False, axis="x")
    return places


def _paper_axes(axes: Axes, found: Shown, panel: list[Series]) -> Axes:
    """Where the paper's values stand: an axis of their own where the data differ."""
    if _beside(found, panel):
        return axes
    if found.figure.kind == "lines":
        other = axes.twinx()
        other.set_ylabel("paper", color=MUTED)
        other.spines["right"].set_visible(True)
    else:
        other = axes.twiny()
        other.set_xlabel("paper", color=MUTED)
        other.spines["top"].set_visible(True)
        other.xaxis.set_major_locator(MaxNLocator(5))
    other.grid(False)
    return other


def _hollow(colour: str, marker: str) -> dict[str, Any]:
    """How a paper's value is drawn."""
    style = {"marker": marker, "markersize": 5, "markeredgecolor": colour, "zorder": 4}
    return {"linestyle": "", "markerfacecolor": "none", "markeredgewidth": 1.1, **style}


def _place(found: Shown, one: Series) -> tuple[int, int]:
    """Which colour a series has, and which shade of it: by line and measure; without lines by
    measure, and where there are several measures at several taps, by measure and tap."""
    measures = found.figure.measures
    if one.by:
        return found.by.index(one.by), measures.index(one.measure)
    stems = list(dict.fromkeys(map(stem_words, measures)))
    if not 1 < len(stems) < len(measures):
        return measures.index(one.measure), 0
    stem = stem_words(one.measure)
    same = [measure for measure in measures if stem_words(measure) == stem]
    return stems.index(stem), same.index(one.measure)


def _look(found: Shown, one: Series) -> Look:
    """Its dashes tell shades apart, where there are any, and else colours too."""
    place, shade = _place(found, one)
    several = any(_place(found, other)[1] for other in found.series)
    dashes = DASHES[(shade if several else place) % len(DASHES)]
    marker = "" if one.throughout else _MARKERS[place % len(_MARKERS)]
    label = one.by or measure_words(one.measure)
    return Look(label, COLOURS[place % len(COLOURS)], dashes, marker)


def _alpha(found: Shown, one: Series) -> float:
    return _ALPHAS[_place(found, one)[1] % len(_ALPHAS)]


def _handles(found: Shown) -> list[Artist]:
    """Of the legend: lines, then measures, then the paper; none where there is one of them."""
    lines = found.figure.kind == "lines"
    firsts = {_look(found, one).label: one for one in reversed(found.series)}
    handles: list[Artist] = []
    style: dict[str, Any]
    for one in reversed(firsts.values()) if len(firsts) > 1 else []:
        look = _look(found, one)
        style = {"linestyle": look.dashes, "marker": look.marker, "markersize": 4}
        style = style if lines else {"linewidth": 6, "alpha": _alpha(found, one)}
        handles.append(Line2D([], [], color=look.colour, label=look.label, **style))
    by_measure = {one.measure: one for one in found.series if one.by}
    for measure, one in by_measure.items() if len(by_measure) > 1 else []:
        style = {"linestyle": _look(found, one).dashes}
        style = style if lines else {"linewidth": 6, "alpha": _alpha(found, one)}
        handles.append(Line2D([], [], color=MUTED, label=measure_words(measure), **style))
    if found.paper:
        style = _hollow(INK, "o" if lines else "D")
        handles.append(Line2D([], [], label=found.figure.paper_source, **style))
    return handles


def _scale(unit: str) -> float:
    return 100.0 if unit == "share" else 1.0


def _table(found: Shown) -> str:
    """A line for each place and measure, in the units of results.json; the paper's as in the
    paper."""
    seeds = sorted({seed for one in found.series for p in one.all_points for seed in p.by_seed})
    rows = []
    for one in found.series:
        for level in found.along:
            point, paper = one.at(level), one.paper.get(level, np.nan)
            known = point.by_seed if point is not None else {}
            half = np.nan if point is None or point.plus_minus is None else point.plus_minus
            numbers = [np.nan if point is None else point.mean, half]
            numbers += [known.get(seed, np.nan) for seed in seeds]
            rows.append([level, one.by, one.measure, found.units[one.measure], *numbers, paper])
    figure = found.figure
    columns = [figure.along, figure.by or "line", "measure", "unit", "mean", "plus minus"]
    return csv_text([*columns, *(f"seed {seed}" for seed in seeds), "paper"], rows)
