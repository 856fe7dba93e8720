"""What a study says of its claims: every contrast tested over seeds and test images together, all
of a claim's contrasts adjusted for their number. The test and its error rate are those of a
comparison (docs/statistics.md)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add, sub

from jaxtyping import Float
from torch import Tensor

from headwise.evaluation.statistics.crossed import (
    FEWEST_FOR_INTERVAL,
    FEWEST_SEEDS,
    CrossedTest,
    crossed_test,
    holm,
    holm_shares,
    interval_at,
    seeds_needed,
    verdict_words,
)
from headwise.report.reading.study import Answer, ClaimFound, Expected, Tested
from headwise.report.tables.study import ends_text, found_text
from headwise.study.answers import Answers, stacked
from headwise.study.design import Claim, Contrast, Group


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """A contrast's difference by seed and test image, or why there is none."""

    d: Float[Tensor, "s n"] | None = None
    why: str = ""
    unit: str = "share"


def judge(claim: Claim, numbers: Answers) -> ClaimFound:
    """What the finished runs say of a claim."""
    rows = [_rows(contrast, numbers) for contrast in claim.contrasts]
    tests = [crossed_test(r.d) if r.d is not None and len(r.d) > 1 else None for r in rows]
    known = [t for t in tests if t is not None]
    p_values = [t.p_value for t in known]
    adjusted = iter(zip(holm(p_values), holm_shares(p_values), strict=True))
    tested = []
    for contrast, row, test in zip(claim.contrasts, rows, tests, strict=True):
        own = next(adjusted) if test is not None else (1.0, 0.05)
        tested.append(_tested(contrast, row, test, own, claim.margin))
    answer = _together([one.answer for one in tested])
    return ClaimFound(
        name=claim.name,
        says=claim.says,
        source=claim.source,
        paper=claim.paper,
        answer=answer,
        words=_words(tested, rows),
        tested=tuple(tested),
    )


def _rows(contrast: Contrast, numbers: Answers) -> _Rows:
    """A slope alone is tested against 0, and so is a mean alone."""
    groups = [group for group in (contrast.plus, contrast.minus) if group is not None]
    weights = [_weights(group, numbers) for group in groups]
    if not all(weights):
        return _Rows(why="it has no arms with these levels")
    values = [
        {arm: numbers.of(arm, group.measure) for arm in weighted}
        for group, weighted in zip(groups, weights, strict=True)
    ]
    every = [by_seed for some in values for by_seed in some.values()]
    seeds = sorted(set.intersection(*({*by_seed} for by_seed in every)))
    if not seeds:
        return _Rows(why="no seed has finished runs of all its arms")
    if len({len(by_seed[seed]) for by_seed in every for seed in seeds}) > 1:
        return _Rows(why="its arms were not measured on the same test images")
    sides = [
        reduce(add, (weight * stacked(some[arm], seeds) for arm, weight in weighted.items()))
        for some, weighted in zip(values, weights, strict=True)
    ]
    return _Rows(d=reduce(sub, sides), unit=numbers.units[contrast.plus.measure])


def _weights(group: Group, numbers: Answers) -> dict[str, float]:
    """How much each arm counts: alike for a mean; for a slope by its distance from the middle, in
    doublings, separately for every combination of the other levels."""
    inside = {
        arm: levels
        for arm, levels in numbers.arms.items()
        if group.levels.items() <= levels.items() and (not group.along or group.along in levels)
    }
    if not group.along:
        return {arm: 1 / len(inside) for arm in inside}
    lines: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
    for arm, levels in inside.items():
        others = tuple((name, level) for name, level in levels.items() if name != group.along)
        lines.setdefault(others, {})[arm] = math.log2(float(levels[group.along]))
    lines = {others: places for others, places in lines.items() if len({*places.values()}) > 1}
    weights = {}
    for places in lines.values():
        middle = sum(places.values()) / len(places)
        spread = sum((place - middle) ** 2 for place in places.values())
        weights |= {a: (place - middle) / spread / len(lines) for a, place in places.items()}
    return weights


def _tested(
    contrast: Contrast,
    rows: _Rows,
    test: CrossedTest | None,
    adjusted: tuple[float, float],
    margin: float,
) -> Tested:
    """`adjusted`: the p-value, and the level of the interval."""
    p_value, level = adjusted
    unit = _unit(contrast, rows.unit)
    seeds = 0 if rows.d is None else len(rows.d)
    judged = test is not None and seeds >= FEWEST_SEEDS
    interval = None
    if test is not None and seeds >= FEWEST_FOR_INTERVAL:
        interval = interval_at(test, level if judged else 0.05)
    value = 0.0 if rows.d is None else rows.d.mean().item()
    shown = alike = False
    if judged and interval is not None:
        shown = interval[0] > 0 or interval[1] < 0
        alike = -margin < interval[0] and interval[1] < margin
    return Tested(
        name=contrast.name,
        measure=contrast.plus.measure,
        expects=contrast.expects,
        unit=unit,
        value=value,
        interval=interval,
        p_value=p_value if judged else None,
        answer=_answer(contrast.expects, value, shown=shown, alike=alike, margin=margin),
        verdict=verdict_words(seeds, shown=shown, alike=alike, within=_margin(margin, unit)),
        seeds=seeds,
        seeds_needed=seeds_needed(test, margin) if interval is not None and test else None,
    )


def _answer(expects: Expected, value: float, *, shown: bool, alike: bool, margin: float) -> Answer:
    if expects == "alike":
        if alike:
            return "supported"
        return "contradicted" if shown and abs(value) >= margin else "cannot tell"
    if shown:
        return "supported" if (value > 0) == (expects == "above") else "contradicted"
    return "equivalent" if alike else "cannot tell"


def _together(answers: Sequence[Answer]) -> Answer:
    """Of a claim whose contrasts must all be as it says."""
    for answer in ("contradicted", "cannot tell", "equivalent"):
        if answer in answers:
            return answer
    return "supported"


def _unit(contrast: Contrast, unit: str) -> str:
    unit = "points" if unit == "share" else unit
    return f"{unit} per doubling" if contrast.plus.along else unit


def _margin(margin: float, unit: str) -> str:
    """`3 points`, or a number in another unit."""
    if unit.startswith("points"):
        return f"{100 * margin:g} {unit}"
    return f"{margin:g}{' per doubling' if unit.endswith(' per doubling') else ''}"


def _words(tested: Sequence[Tested], rows: Sequence[_Rows]) -> str:
    """`mlp − linear +2.1 points, +0.5 to +3.7: shown over 5 seeds.`"""
    said = []
    for one, row in zip(tested, rows, strict=True):
        numbers = ", ".join(filter(None, (found_text(one), ends_text(one))))
        known = row.d is not None
        said.append(f"{one.name} {numbers}: {_decides(one)}" if known else f"{one.name}: {row.why}")
    return f"{'; '.join(said)}."


def _decides(one: Tested) -> str:
    """The verdict, and what would decide it where it cannot."""
    if one.answer != "cannot tell":
        return one.verdict
    needed = one.seeds_needed
    if one.seeds < FEWEST_SEEDS:
        return one.verdict
    if needed is None:
        return f"{one.verdict}; it takes more test images"
    if needed <= one.seeds:
        return f"{one.verdict}, though a difference of the margin would mostly be"
    return f"{one.verdict}; about {needed} seeds would show a difference of the margin"
