"""What one figure of a study shows: a value for each place of it, and the paper's values."""

import itertools
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from headwise.report.reading.study import ArmFound, Figure, StudyFindings


@dataclass(frozen=True, kw_only=True)
class Point:
    """What the arms at one place of a figure reached in one measure."""

    by_seed: dict[int, float]
    """Mean over the arms, where there are several."""
    plus_minus: float | None
    """Half of the 95 % interval of the mean; None where it is not known."""
    arms: int = 1

    @property
    def mean(self) -> float:
        return statistics.mean(self.by_seed.values())

    @property
    def scattered(self) -> bool:
        """Whether its seeds stand for the interval that is not known."""
        return self.plus_minus is None and len(self.by_seed) > 1


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a figure, one row of a heat map, or the bars of one colour."""

    by: str
    """The level of the axis that lines stand for; empty: none."""
    measure: str
    points: dict[str, Point]
    """By level along the figure. What has no finished run is not in it."""
    missing: int
    """Levels that the study asks for, and that no run has reached."""
    throughout: Point | None = None
    """In place of `points`, where the arm does not have the axis: a level line. In lines alone."""
    paper: dict[str, float]
    """By level; in the paper's unit."""

    def at(self, level: str) -> Point | None:
        return self.points.get(level, self.throughout)

    @property
    def all_points(self) -> list[Point]:
        return [*self.points.values(), *([self.throughout] if self.throughout else [])]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A figure of a study with its values."""

    figure: Figure
    along: tuple[str, ...]
    """Levels in order: the study's, then those that only the paper has."""
    series: tuple[Series, ...]
    units: dict[str, str]
    """By measure."""
    missing: int
    """Places without a finished run."""
    same_data: bool
    """Whether the paper's values are of the study's data, so that one axis can hold both."""
    square: bool
    """Whether rows and columns have the same levels, so that the mean of a row has a meaning."""

    @cached_property
    def by(self) -> list[str]:
        """Levels of the lines, in order."""
        return list(dict.fromkeys(one.by for one in self.series))

    @property
    def panels(self) -> list[list[Series]]:
        """Series that can share an axis: their measures have one unit."""
        units = dict.fromkeys(self.units.values())
        return [[one for one in self.series if self.units[one.measure] == unit] for unit in units]

    @property
    def paper(self) -> bool:
        """Whether there are values of a paper."""
        return any(one.paper for one in self.series)

    @property
    def averaged(self) -> int:
        """How many arms a place is the mean of, at most."""
        points = itertools.chain(*(one.all_points for one in self.series))
        return max((point.arms for point in points), default=1)


def shown(findings: StudyFindings, figure: Figure) -> Shown:
    """The values of a figure. At a place where several arms are, those with the fewest other axes
    count, and their mean is shown."""
    levels = findings.axes.get(figure.along, [])
    rows = findings.axes.get(figure.by, []) if figure.by else [""]
    series: list[Series] = []
    for by in rows:
        found = [_series(findings, figure, by, measure) for measure in figure.measures]
        if _asked(findings, figure, by) or any(one.all_points or one.paper for one in found):
            series += found
    of_paper = itertools.chain(*(one.paper for one in series))
    along = _in_order([*levels, *dict.fromkeys(level for level in of_paper if level not in levels)])
    units = {m: unit for arm in findings.arms for m, unit in arm.units.items()}
    return Shown(
        figure=figure,
        along=along,
        series=tuple(series),
        units={measure: units.get(measure, "") for measure in figure.measures},
        missing=sum(one.missing for one in series),
        same_data=_same_data(figure.paper_source, findings.scale),
        square=len(levels) > 1 and sorted(levels) == sorted(rows),
    )


def number_of(level: str) -> float | None:
    """The positive number that a level is: `0.5`, `1/8`; None for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e-?\d+)?)(?:/(\d+))?", level)
    if match is None:
        return None
    return float(match[1]) / float(match[2] or 1) or None


def _series(findings: StudyFindings, figure: Figure, by: str, measure: str) -> Series:
    fixed = figure.levels | ({figure.by: by} if figure.by else {})
    points, missing = {}, 0
    for level in findings.axes.get(figure.along, []):
        there = _with(findings.arms, fixed | {figure.along: level})
        fewest = min((len(arm.levels) for arm in there), default=0)
        point = _point([arm for arm in there if len(arm.levels) == fewest], measure)
        if point is not None:
            points[level] = point
        elif there:
            missing += 1
    plain = [arm for arm in _with(findings.arms, fixed) if len(arm.levels) == len(fixed)]
    level_line = figure.kind == "lines" and not points
    key = by if by and measure == figure.measures[0] else measure
    return Series(
        by=by,
        measure=measure,
        points=points,
        missing=missing,
        throughout=_point(plain, measure) if level_line else None,
        paper=figure.paper.get(key, {}),
    )


def _with(arms: Sequence[ArmFound], levels: dict[str, str]) -> list[ArmFound]:
    return [arm for arm in arms if levels.items() <= arm.levels.items()]


def _asked(findings: StudyFindings, figure: Figure, by: str) -> bool:
    """Whether the study has this line, with or without finished runs."""
    fixed = figure.levels | ({figure.by: by} if figure.by else {})
    return any(figure.along in arm.levels for arm in _with(findings.arms, fixed))


def _point(arms: Sequence[ArmFound], measure: str) -> Point | None:
    """Over the seeds that all arms have."""
    known = [arm for arm in arms if arm.values.get(measure)]
    if not known:
        return None
    values = [dict(zip(arm.seeds, arm.values[measure], strict=True)) for arm in known]
    common = [seed for seed in known[0].seeds if all(seed in one for one in values)]
    if not common:
        return None
    return Point(
        by_seed={seed: statistics.mean(one[seed] for one in values) for seed in common},
        plus_minus=known[0].plus_minus.get(measure) if len(known) == 1 else None,
        arms=len(known),
    )


def _in_order(levels: list[str]) -> tuple[str, ...]:
    """Numbers by size, if all are numbers."""
    numbers = {level: number_of(level) for level in levels}
    if None in numbers.values():
        return tuple(levels)
    return tuple(sorted(levels, key=lambda level: numbers[level] or 0.0))


def _same_data(source: str, scale: str) -> bool:
    """Whether the data set that the source names last is the study's: `CIFAR-10` is `cifar10`."""
    name = source.rpartition(",")[2].replace("-", "").strip().lower()
    return bool(name) and name in re.split(r"\W+", scale.replace("-", "").lower())
