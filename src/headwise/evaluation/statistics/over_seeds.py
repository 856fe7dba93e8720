"""Several systems that answered the same test images at the same seeds: what is shown of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from headwise.evaluation.statistics.crossed import (
    FEWEST_FOR_INTERVAL,
    FEWEST_SEEDS,
    MARGIN,
    CrossedTest,
    crossed_test,
    holm,
    holm_shares,
    interval_at,
    seeds_needed,
    verdict_words,
)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What two systems, a and b, differ by in one measure: a − b."""

    measure: str
    """`linear/h`; for a head's h against its z, `linear`."""
    a: str
    b: str
    """Another head, a baseline, or `z`."""
    value: float
    """Mean over seeds and test images."""
    interval: tuple[float, float] | None = None
    """95 %, for other seeds and other test images; None with fewer than three seeds. With five or
    more it is for all pairs of this measure together, as `p_value` is, so it agrees with it."""
    p_value: float | None = None
    """Two-sided, adjusted for all pairs of this measure; None with fewer than five seeds."""
    verdict: str
    """`shown over 5 seeds`, `not shown`, `equivalent within 3 points`; or that there is none."""
    within: tuple[tuple[float, float], ...]
    """For every seed the 95 % interval for other test images: it is about that seed's networks."""
    seed_deviation: float | None = None
    """Standard deviation from seed to seed, on the same images."""
    image_error: float
    """Standard error that the choice of test images brings."""
    seeds_for_three_points: int | None = None
    """How many seeds would show a difference of 3 points in four cases of five; None where it is
    not known, or where it takes more test images."""
    seeds: int
    images: int

    @property
    def shown(self) -> bool:
        return self.verdict.startswith("shown")


def differences(
    measure: str,
    answers: Mapping[str, Float[Tensor, "s n"]],
    pairs: Sequence[tuple[str, str]],
) -> list[Difference]:
    """Test each pair of systems on their answers by seed and test image, at least two images. With
    enough seeds for a verdict, p-values and intervals are adjusted for all of the pairs (Holm)."""
    apart = [answers[a] - answers[b] for a, b in pairs]
    tests = [crossed_test(d) if len(d) > 1 else None for d in apart]
    p_values = [test.p_value for test in tests if test is not None]
    adjusted = list(zip(holm(p_values), holm_shares(p_values), strict=True))
    judged = bool(adjusted) and len(apart[0]) >= FEWEST_SEEDS
    return [
        _difference(measure, pair, d, test, adjusted[i] if judged else None)
        for i, (pair, d, test) in enumerate(zip(pairs, apart, tests, strict=True))
    ]


def _difference(
    measure: str,
    pair: tuple[str, str],
    d: Float[Tensor, "s n"],
    test: CrossedTest | None,
    adjusted: tuple[float, float] | None,
) -> Difference:
    """`adjusted`: the p-value, and the level of the interval; None where there is no verdict."""
    s, n = d.shape
    known = test if s >= FEWEST_FOR_INTERVAL else None
    p_value, level = adjusted or (None, 0.05)
    interval = interval_at(known, level) if known else None
    return Difference(
        measure=measure,
        a=pair[0],
        b=pair[1],
        value=d.mean().item(),
        interval=interval,
        p_value=p_value,
        verdict="" if test is None else _verdict(s, interval),
        within=tuple(_over_images(one) for one in d),
        seed_deviation=None if test is None else test.seed_deviation,
        image_error=(d[0].std() / n**0.5).item() if test is None else test.image_error,
        seeds_for_three_points=seeds_needed(known) if known else None,
        seeds=s,
        images=n,
    )


def _verdict(seeds: int, interval: tuple[float, float] | None) -> str:
    """What the interval says: nothing else is printed beside it."""
    low, high = interval or (-1.0, 1.0)
    return verdict_words(
        seeds,
        shown=low > 0 or high < 0,
        alike=low > -MARGIN and high < MARGIN,
        within=f"{100 * MARGIN:g} points",
    )


def half_width(answers: Float[Tensor, "s n"]) -> float | None:
    """Half of the 95 % interval of the mean. With one seed it is about that network, on other test
    images; with five or more about other seeds too; with two to four it is not known."""
    if len(answers) == 1:
        low, high = _over_images(answers[0])
    elif len(answers) < FEWEST_SEEDS:
        return None
    else:
        low, high = crossed_test(answers).interval
    return (high - low) / 2


def half_width_of_means(values: Sequence[float]) -> float | None:
    """The same of numbers of which every seed has one, such as a rank."""
    if len(values) < FEWEST_SEEDS:
        return None
    low, high = crossed_test(
        torch.tensor(values, dtype=torch.float64)[:, None].expand(-1, 2)
    ).interval
    return (high - low) / 2


def _over_images(d: Float[Tensor, " n"]) -> tuple[float, float]:
    """The 95 % t-interval of a mean over test images."""
    from scipy import stats

    mean, n = d.mean().item(), len(d)
    half = float(stats.t.ppf(0.975, n - 1)) * d.std().item() / n**0.5
    return mean - half, mean + half
