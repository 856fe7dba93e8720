"""What a study is: a grid of settings, what is measured of every run, and the claims it asks about.

A study is data: it is written to study.json as it began, so that another process or another machine
can go on with it from there.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from headwise import heads
from headwise.config import check_fields, with_values
from headwise.errors import UserError, nearest
from headwise.evaluation.config import EvaluateConfig
from headwise.evaluation.statistics.crossed import FEWEST_SEEDS
from headwise.files import Json
from headwise.fusion.config import FusionConfig
from headwise.model.config import PretrainConfig
from headwise.report.reading.study import Expected, Figure, Levels


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What a study varies, in several levels."""

    name: str
    """As tables and figures call it: `output size`."""
    levels: dict[str, Json]
    """By their labels, in order: the settings of each, by path (`{"head.output_size": 64}`)."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.levels:
            raise UserError(f"the axis {self.name!r} must have levels; got none")


def axis(name: str, setting: str, *values: Any) -> Axis:
    """An axis of one setting, whose levels are called as its values are."""
    return Axis(name=name, levels={f"{value}": {setting: value} for value in values})


@dataclass(frozen=True, kw_only=True)
class Group:
    """The arms that have these levels, by one number of theirs."""

    levels: Levels = field(default_factory=dict)
    """The level of each axis that is fixed; arms are averaged over the others. Empty: all arms."""
    measure: str = "linear/h"
    """A key of results.json."""
    along: str = ""
    """An axis whose levels are positive numbers. In place of the mean of the arms, the slope of
    their measure for each doubling of it."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """What is tested: one group of arms less another; of a slope, whether it is 0."""

    name: str
    """`mlp − linear`."""
    plus: Group
    minus: Group | None = None
    expects: Expected = "above"
    """What the claim says of `plus` less `minus`."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of a paper that a study can support or contradict."""

    name: str
    """A word for links: `non-linear-over-linear`."""
    says: str
    """In one plain sentence."""
    source: str
    """Who says so, and where: `SimCLR (arXiv 2002.05709), Figure 8`."""
    paper: str = ""
    """Their numbers, at their scale."""
    contrasts: tuple[Contrast, ...]
    """All of them must be as the claim says."""
    margin: float = 0.03
    """Less than this counts as no difference: in shares (0.03: 3 points), or in the measure's own
    unit; of a slope, for each doubling."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A grid of settings and seeds, what is measured, and what it asks."""

    name: str
    asks: str
    """The question, in one sentence."""
    base: PretrainConfig
    """The settings that no axis changes. Its seed is the first."""
    grids: tuple[tuple[Axis, ...], ...]
    """The arms: every grid is all combinations of the levels of its axes; an axis that a grid does
    not have is left at `base`. A level may have other settings in another grid. It may have none
    where it only says what an arm is, for groups and figures."""
    evaluate: EvaluateConfig = field(default_factory=lambda: EvaluateConfig(baselines=False))
    """What is measured of every run, with its own seed."""
    baselines: bool = False
    """Also measure what heads are set beside, once for each seed: a constant answer, raw pixels,
    the encoder untrained, and the encoder trained from scratch on the same labels."""
    seeds: int = FEWEST_SEEDS
    """Runs of each arm."""
    claims: tuple[Claim, ...] = ()
    figures: tuple[Figure, ...] = ()
    fusion: FusionConfig | None = None
    """Also measure fusion, in the runs whose head attends over the batch."""
    takes: str = ""
    """How long it takes, and on what, as measured."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.seeds < 1:
            raise UserError(f"--seeds must be at least 1; got {self.seeds}")
        if not any(self.grids):
            raise UserError(f"the study {self.name!r} must have arms; its grids are empty")
        known: dict[str, list[str]] = {}
        for one in itertools.chain(*self.grids):
            known.setdefault(one.name, []).extend(one.levels)
        for claim in self.claims:
            for contrast in claim.contrasts:
                for group in filter(None, (contrast.plus, contrast.minus)):
                    asked = {**group.levels, group.along: None}
                    _check_levels(f"the claim {claim.name!r}", asked, known)
        for figure in self.figures:
            asked = {**figure.levels, figure.along: None, figure.by: None}
            _check_levels(f"the figure {figure.name!r}", asked, known)


def _check_levels(
    who: str, asked: Mapping[str, str | None], known: Mapping[str, list[str]]
) -> None:
    for name, level in asked.items():
        if name and name not in known:
            raise UserError(f"{who} names no axis of its study: {name!r}; {nearest(name, known)}")
        if level is not None and level not in known[name]:
            raise UserError(
                f"{who} names no level of {name!r}: {level!r}; {nearest(level, known[name])}"
            )


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a study."""

    levels: Levels
    """Its level of every axis that its grid has."""
    config: PretrainConfig
    """All settings, with its seed."""

    @property
    def arm(self) -> str:
        """What tells it from the cells of other arms: `head mlp, output size 64`."""
        return arm_name(self.levels)


def arm_name(levels: Mapping[str, str]) -> str:
    """Levels in words: `head mlp, output size 64`."""
    return ", ".join(f"{name} {level}" for name, level in levels.items())


def arms(study: Study) -> Iterator[Levels]:
    """The levels of every arm, in order. Two grids may share one."""
    seen: list[Levels] = []
    for grid in study.grids:
        for labels in itertools.product(*(a.levels for a in grid)):
            levels = dict(zip((a.name for a in grid), labels, strict=True))
            if levels not in seen:
                seen.append(levels)
                yield levels


def cells(study: Study) -> list[Cell]:
    """Every run: seed by seed, so that a study that stops early has some of every arm. Raises
    `UserError` for a setting that does not exist (naming the nearest) or cannot be."""
    configs = [(levels, config_of(study, levels)) for levels in arms(study)]
    seeds = range(study.base.seed, study.base.seed + study.seeds)
    return [
        Cell(levels=levels, config=replace(config, seed=seed))
        for seed in seeds
        for levels, config in configs
    ]


def _grid_of(study: Study, levels: Levels) -> tuple[Axis, ...]:
    """The first grid that has this arm."""
    return next(
        grid
        for grid in study.grids
        if levels.keys() == {a.name for a in grid} and all(levels[a.name] in a.levels for a in grid)
    )


def config_of(study: Study, levels: Levels) -> PretrainConfig:
    """The settings of an arm. A level that names another head than the base has that head's own
    defaults."""
    settings: dict[str, Any] = {}
    for one in _grid_of(study, levels):
        settings |= one.levels[levels[one.name]]
    try:
        return with_values(*headed(study.base, settings))
    except UserError as error:
        raise UserError(f"the arm {arm_name(levels)!r} of {study.name!r}: {error}") from None


def headed(
    base: PretrainConfig, settings: Mapping[str, Any]
) -> tuple[PretrainConfig, dict[str, Any]]:
    """The settings to begin with, under the head that these name, and the others of these."""
    rest = {path: value for path, value in settings.items() if path != "head.name"}
    if len(rest) == len(settings):
        return base, rest
    if (name := settings["head.name"]) not in heads.HEADS:
        raise UserError(f"head.name must be known; got {name!r}; {nearest(str(name), heads.HEADS)}")
    return replace(base, head=heads.for_head(base.head, cast(heads.HeadName, name))), rest
