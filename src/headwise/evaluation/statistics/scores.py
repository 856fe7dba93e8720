"""Scores with their errors, and when two of them differ by more than noise."""

import math
from dataclasses import dataclass, field

from scipy.special import stdtrit

LEVEL = 0.05
"""Probability of calling two equal scores different, shared among all the pairs compared."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """A value with its error."""

    value: float
    spread: float
    """What is printed after ±: the standard deviation over seeds; with one seed, the binomial
    standard error of an accuracy (zero for anything else)."""
    error: float
    """Standard error of `value`: what comparisons use."""
    freedom: float
    """Degrees of freedom of `error`; infinite for the binomial error."""
    p_values: dict[str, float] = field(default_factory=dict)
    """With one seed, by other head: the p-value of a paired test, image by image."""


def differs(a: Score, b: Score, comparisons: int) -> bool:
    """Whether `a` and `b` differ by more than noise: Welch's two-sided t test at `LEVEL`, divided
    by the number of comparisons (Bonferroni).

    With one seed this is the normal test of two proportions, as if the two scores came from
    different test images; on the same images it errs on the side of "no difference". SciPy's
    Welch test takes no errors of infinite freedom, so the formula stands here.
    """
    error = math.hypot(a.error, b.error)
    if error == 0:
        return a.value != b.value
    lost = a.error**4 / a.freedom + b.error**4 / b.freedom
    freedom = error**4 / lost if lost else math.inf
    threshold = float(stdtrit(freedom, 1 - LEVEL / (2 * comparisons)))
    return abs(a.value - b.value) > threshold * error


def best_and_tied(scores: dict[str, Score]) -> tuple[str, set[str]]:
    """The head with the highest score, and those not shown to differ from it.

    The best was chosen by looking, so the level is shared among all pairs of heads.
    """
    best = max(scores, key=lambda name: scores[name].value)
    pairs = max(1, len(scores) * (len(scores) - 1) // 2)
    top, tied = scores[best], set()
    for name in set(scores) - {best}:
        if name in top.p_values:
            apart = top.p_values[name] < LEVEL / pairs
        else:
            apart = differs(top, scores[name], pairs)
        if not apart:
            tied.add(name)
    return best, tied


def is_accuracy(key: str) -> bool:
    return key.startswith(("knn", "linear"))
