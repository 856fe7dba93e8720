"""Whether two heads differ over training seeds: seeds and test images are both random.

A difference between two heads at seed `s` on test image `i` is `d[s, i]`. It varies with the seed,
with the image, and beyond both. A claim about heads must hold for other seeds *and* other images,
so all three parts enter its error (crossed random effects; Baayen, Davidson & Bates 2008, doi
10.1016/j.jml.2007.12.005). The degrees of freedom are Satterthwaite's (1946). How often this test
is wrong was simulated: docs/statistics.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

from headwise.errors import UserError

FEWEST_SEEDS = 5
"""With fewer, differences and intervals are given, and no verdict."""
FEWEST_FOR_INTERVAL = 3
"""The spread of two seeds says nothing."""
MARGIN = 0.03
"""Two heads are equivalent where they differ by less: 3 points of accuracy."""
MOST_SEEDS = 100
"""Above this, `seeds_needed` says that seeds alone do not help."""


@dataclass(frozen=True, kw_only=True)
class CrossedTest:
    """The mean difference over seeds and test images, and how sure it is."""

    difference: float
    interval: tuple[float, float]
    """95 %, for other seeds and other images of the same kind."""
    p_value: float
    """Two-sided."""
    standard_error: float
    freedom: float
    """Degrees of freedom of the standard error."""
    seed_deviation: float
    """Standard deviation of the difference from seed to seed, on the same images."""
    image_error: float
    """Standard error of the mean difference that the choice of test images brings."""
    residual_deviation: float
    """Standard deviation of one image's difference at one seed beyond both."""
    seeds: int
    images: int


def crossed_test(differences: Shaped[Tensor, "s n"]) -> CrossedTest:
    """Test the mean of `d[s, i]`, for at least two seeds and two images.

    Raises `UserError` for fewer, and for values that are not finite.
    """
    s, n = differences.shape
    if s < 2 or n < 2:
        raise UserError(
            f"a comparison of heads needs at least two seeds and two test images; got {s} and {n}; "
            "one seed describes its runs and ranks nothing"
        )
    d = differences.double().cpu().numpy()
    if not np.isfinite(d).all():
        raise UserError("a comparison of heads needs finite answers; got NaN or infinity")
    mean, by_seed, by_image = d.mean(), d.mean(1), d.mean(0)
    beyond = d - by_seed[:, None] - by_image + mean
    residual = (beyond**2).sum() / ((s - 1) * (n - 1))
    of_seeds, of_images = by_seed.var(ddof=1) / s, by_image.var(ddof=1) / n
    # The residual is in both parts, so it is counted twice; by chance it can exceed either.
    variance = max(of_seeds + of_images - residual / (s * n), of_seeds, of_images)
    error, freedom = variance**0.5, _freedom(variance, of_seeds, of_images, s, n)
    low, high, p_value = _t_test(mean, error, freedom)
    return CrossedTest(
        difference=float(mean),
        interval=(low, high),
        p_value=p_value,
        standard_error=float(error),
        freedom=freedom,
        seed_deviation=max(0.0, by_seed.var(ddof=1) - residual / n) ** 0.5,
        image_error=max(0.0, of_images - residual / (s * n)) ** 0.5,
        residual_deviation=float(residual**0.5),
        seeds=s,
        images=n,
    )


def p_value_at(test: CrossedTest, value: float) -> float:
    """The two-sided p-value that the mean difference is not 0 but `value`."""
    return _t_test(test.difference - value, test.standard_error, test.freedom)[2]


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for looking at all of them (Holm 1979), in their order."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def holm_shares(p_values: Sequence[float], level: float = 0.05) -> list[float]:
    """The part of `level` at which Holm's method tests each: from the smallest p-value on, among
    how many are left; where one is not significant, all others have its part. An interval at this
    level leaves out 0 where, and only where, the adjusted p-value is below `level`."""
    shares, left, stopped = [level] * len(p_values), len(p_values), False
    for i in sorted(range(len(p_values)), key=lambda i: p_values[i]):
        shares[i] = level / left
        stopped = stopped or p_values[i] >= shares[i]
        left -= not stopped
    return shares


def interval_at(test: CrossedTest, level: float) -> tuple[float, float]:
    """The interval of the mean difference that is wrong in this share of cases."""
    return _t_test(test.difference, test.standard_error, test.freedom, level)[:2]


def verdict(
    test: CrossedTest,
    p_value: float | None = None,
    *,
    margin: float = MARGIN,
    within: str | None = None,
) -> str:
    """In words: shown, equivalent, or not shown. `p_value`: the test's, adjusted for others beside
    it. Equivalent: two one-sided tests at 5 % show a difference of less than `margin`, which
    `within` calls by its unit (None: points). With fewer than `FEWEST_SEEDS`, that there is no
    verdict."""
    p_value = test.p_value if p_value is None else p_value
    alike = _margin_p_value(test, margin) < 0.05
    within = within or f"{100 * margin:g} points"
    return verdict_words(test.seeds, shown=p_value < 0.05, alike=alike, within=within)


def verdict_words(seeds: int, *, shown: bool, alike: bool, within: str) -> str:
    """The words of every verdict over seeds, and no others."""
    if seeds < FEWEST_SEEDS:
        return f"{seeds} of {FEWEST_SEEDS} seeds: no verdict"
    if shown:
        return f"shown over {seeds} seeds"
    return f"equivalent within {within}" if alike else "not shown"


def seeds_needed(test: CrossedTest, difference: float = MARGIN, power: float = 0.8) -> int | None:
    """How many seeds would show a difference of this size, on as many test images as here, with
    this probability, if seeds and images vary as they did. None: more than `MOST_SEEDS`, so it
    takes more test images."""
    from scipy import stats

    of_images = test.image_error**2
    for seeds in range(2, MOST_SEEDS + 1):
        beyond = test.residual_deviation**2 / (seeds * test.images)
        of_seeds = test.seed_deviation**2 / seeds
        variance = of_seeds + of_images + beyond
        if variance == 0:
            return seeds
        parts = of_seeds + beyond, of_images + beyond
        freedom = _freedom(variance, *parts, seeds, test.images)
        limit, shift = stats.t.ppf(0.975, freedom), difference / variance**0.5
        if stats.nct.sf(limit, freedom, shift) >= power:
            return seeds
    return None


def _freedom(variance: float, of_seeds: float, of_images: float, seeds: int, images: int) -> float:
    """Satterthwaite's. The residual's own part is left out: it has many more."""
    parts = of_seeds**2 / (seeds - 1) + of_images**2 / (images - 1)
    return float(variance**2 / parts) if parts > 0 else float(seeds - 1)


def _t_test(
    mean: float, error: float, freedom: float, level: float = 0.05
) -> tuple[float, float, float]:
    """The interval, at 95 % unless told, and the two-sided p-value."""
    from scipy import stats

    if error == 0:
        return float(mean), float(mean), 1.0 if mean == 0 else 0.0
    half = stats.t.ppf(1 - level / 2, freedom) * error
    p_value = 2 * stats.t.sf(abs(mean) / error, freedom)
    return float(mean - half), float(mean + half), float(p_value)


def _margin_p_value(test: CrossedTest, margin: float) -> float:
    """The larger p-value of the two one-sided tests that the difference is within the margin."""
    from scipy import stats

    room = margin - abs(test.difference)
    if test.standard_error == 0:
        return 0.0 if room > 0 else 1.0
    return float(stats.t.sf(room / test.standard_error, test.freedom))
