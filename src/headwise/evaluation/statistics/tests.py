"""Whether two systems that answered the same images differ: permutation tests and bootstraps."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from headwise import rng
from headwise.errors import UserError
from headwise.runs.results import RESAMPLES, bootstrap_mean

Score = Callable[[Tensor, Tensor], float]
"""From the answers to n images and the truth about them, image by image, to one number."""

# Signs held at once: 32 MiB of float64, whatever the number of images.
_BLOCK_ELEMENTS = 1 << 22

# Sums that are equal but for the order of their terms count as equal, relative to their size.
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Two systems, a and b, on the same images."""

    difference: float
    """a − b."""
    interval: tuple[float, float]
    """95 % bootstrap interval of the difference; it resamples images, each with both answers."""
    p_value: float
    """Two-sided: how often chance alone gives a difference at least this large, where it does not
    matter which system gave which of an image's two answers."""
    n: int
    """Images."""


def paired_permutation_test(
    a: Float[Tensor, " n"], b: Float[Tensor, " m"], *, seed: int, permutations: int = 10_000
) -> PairedTest:
    """Compare two means over the same images, row by row: of 1 and 0 for right and wrong, or of
    any number.

    Under the null hypothesis the sign of each row's difference is a coin's. Where all differences
    but zeros have one size, the distribution of their sum is binomial and the p-value exact
    (McNemar's exact test, for right and wrong). Otherwise signs are drawn, and the observed ones
    counted among them, so that p is never 0. Raises `UserError` unless n = m > 0, and for rows that
    are not finite.
    """
    _check(a, b)
    differences = a.double().cpu() - b.double().cpu()
    return PairedTest(
        difference=differences.mean().item(),
        interval=bootstrap_mean(differences, seed),
        p_value=_sign_flip_p_value(differences, seed, permutations),
        n=len(differences),
    )


def paired_score_test(
    score: Score,
    a: Shaped[Tensor, "n *c"],
    b: Shaped[Tensor, "n *c"],
    truth: Shaped[Tensor, "n *k"],
    *,
    seed: int,
    permutations: int = 1_000,
) -> PairedTest:
    """Compare two systems by a score that is no mean over images, such as an average precision.

    Under the null hypothesis the two answers to an image may change places: it is computed again
    and again with a random half of them swapped. Answers of the two systems must mean the same, so
    give ranks instead of scores whose scales may differ. Errors as in `paired_permutation_test`.
    """
    _check(a, b)
    observed = score(a, truth) - score(b, truth)
    generator = rng.generator(seed, "permutation")
    extreme = 0
    for _ in range(permutations):
        swapped = torch.randint(2, (len(a),), generator=generator).bool()
        swapped = swapped.reshape(-1, *[1] * (a.ndim - 1))
        first, second = torch.where(swapped, b, a), torch.where(swapped, a, b)
        difference = score(first, truth) - score(second, truth)
        extreme += abs(difference) >= abs(observed) - _ROUNDING
    return PairedTest(
        difference=observed,
        interval=bootstrap(
            lambda rows: score(a[rows], truth[rows]) - score(b[rows], truth[rows]),
            len(a),
            seed=seed,
        ),
        p_value=(1 + extreme) / (1 + permutations),
        n=len(a),
    )


def bootstrap(
    statistic: Callable[[Int64[Tensor, " n"]], float], n: int, *, seed: int
) -> tuple[float, float]:
    """95 % percentile interval of a statistic of n images, given as row numbers that may repeat."""
    generator = rng.generator(seed, "bootstrap")
    found = [statistic(torch.randint(n, (n,), generator=generator)) for _ in range(RESAMPLES)]
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def _sign_flip_p_value(differences: Float[Tensor, " n"], seed: int, permutations: int) -> float:
    # Zeros have no sign to flip.
    moved = differences[differences != 0]
    if not len(moved):
        return 1.0
    sizes = moved.abs()
    if bool((sizes == sizes[0]).all()):
        from scipy.stats import binomtest

        return float(binomtest(int((moved > 0).sum()), len(moved)).pvalue)
    at_least = moved.sum().abs() - _ROUNDING * sizes.sum()
    generator = rng.generator(seed, "permutation")
    rows = max(1, _BLOCK_ELEMENTS // len(moved))
    extreme = 0
    for start in range(0, permutations, rows):
        shape = (min(rows, permutations - start), len(moved))
        heads = torch.randint(2, shape, generator=generator, dtype=torch.float64)
        sums = 2 * (heads @ moved) - moved.sum()
        extreme += int((sums.abs() >= at_least).sum())
    return (1 + extreme) / (1 + permutations)


def _check(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or not len(a):
        raise UserError(
            "a paired test needs two systems' answers to the same images; "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    for which, answers in (("first", a), ("second", b)):
        if not answers.isfinite().all():
            raise UserError(
                f"a paired test needs finite answers; the {which} system's have NaN or infinity"
            )
