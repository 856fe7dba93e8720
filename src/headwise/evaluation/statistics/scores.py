"""Scores with their errors, and when two of them differ by more than noise."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

from scipy.special import stdtrit

LEVEL = 0.05
"""Probability of calling two equal scores different, shared among all the pairs compared."""


@dataclass(frozen=True, kw_only=True)
class Score:
    value: float
    spread: float
    """What is printed after ±: the standard deviation over seeds, or with one seed the binomial
    standard error of an accuracy (zero for anything else)."""
    error: float
    """Standard error of `value`: what comparisons use."""
    freedom: float
    """Degrees of freedom of `error`; infinite for the binomial one."""
    p_values: dict[str, float] = field(default_factory=dict)
    """Of a paired test, image by image, against other heads' scores; with one seed."""


def score(summary: dict[str, Any], group: str, name: str, key: str) -> Score | None:
    """`summary[group][name][key]` with its error; None where it was not measured.

    `group` is "heads" or "baselines". Raw pixels have no taps: their "knn" answers for "knn/h".
    With several seeds a missing standard deviation counts as zero (pixels have no seed).
    """
    value = _lookup(summary[group].get(name) or {}, key)
    if value is None:
        return None
    seeds = summary.get("seeds") or 1
    if seeds > 1:
        deviations = (summary.get("std") or {}).get(group) or {}
        spread = _lookup(deviations.get(name) or {}, key) or 0.0
        return Score(
            value=value, spread=spread, error=spread / math.sqrt(seeds), freedom=seeds - 1.0
        )
    n = summary.get("n_test")
    binomial = is_accuracy(key) and n and 0 <= value <= 1
    error = math.sqrt(value * (1 - value) / n) if binomial else 0.0
    return Score(value=value, spread=error, error=error, freedom=math.inf)


def differs(a: Score, b: Score, comparisons: int) -> bool:
    """Whether `a` and `b` differ by more than noise: Welch's two-sided t test at `LEVEL`, divided
    by the number of comparisons (Bonferroni).

    With one seed this is the normal test of two proportions, as if the two scores came from
    different test images; on the same images it errs on the side of "no difference".
    """
    error = math.hypot(a.error, b.error)
    if error == 0:
        return a.value != b.value
    lost = a.error**4 / a.freedom + b.error**4 / b.freedom
    freedom = error**4 / lost if lost else math.inf
    threshold = float(stdtrit(freedom, 1 - LEVEL / (2 * comparisons)))
    return abs(a.value - b.value) > threshold * error


def head_scores(summary: dict[str, Any], key: str) -> dict[str, Score]:
    """The heads that have `key`, in the summary's order."""
    scores = {name: score(summary, "heads", name, key) for name in summary["heads"]}
    paired = (summary.get("p_values") or {}).get(key) or {}
    return {
        name: replace(found, p_values=paired.get(name) or {})
        for name, found in scores.items()
        if found is not None
    }


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


def finite(value: Any) -> float | None:
    """`value` as a float, or None where it is missing, null or not finite."""
    if value is None or not math.isfinite(value):
        return None
    return float(value)


def _lookup(values: dict[str, Any], key: str) -> float | None:
    return finite(values.get(key, values.get(key.removesuffix("/h"))))
