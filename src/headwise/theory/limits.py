"""The smallest batch and the strongest augmentation with which classes still fuse, by the map and
by simulation.

With more tokens of a class, the attention to the class exceeds that to the token itself. Stronger
augmentation multiplies all cosines by a smaller share ρ, because views have less in common.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from headwise.theory.map import FUSED, BatchShape, Cosines, Layer, outcome, trajectory
from headwise.theory.simulation import simulate

_MAX_PER_CLASS = 2.0**20
_STEPS = 40


class LimitCheck(NamedTuple):
    """A limit predicted by the map, and the limit of random batches."""

    cosines: Cosines
    layer: Layer
    batch: BatchShape
    predicted: float
    simulated: float


def balance_per_class(cosines: Cosines, beta: float, width: int | float) -> float:
    """Return the number of tokens per class at which a token attends to its class as much as to
    itself: 1 + exp(β(1 − a) − β²(1 − a)/2w)."""
    noise = 1 - cosines.within
    return 1 + math.exp(beta * noise - beta**2 * noise / (2 * width))


def minimum_per_class(
    cosines: Cosines, layer: Layer, batch: BatchShape, layers: int
) -> float | None:
    """Return the least n with which `layers` layers raise a to `FUSED`, or None if no n does.
    `batch.per_class` is not used."""

    def reached(n: float) -> bool:
        size = dataclasses.replace(batch, per_class=n)
        return trajectory(cosines, layer, size, layers)[-1].within >= FUSED

    if not reached(_MAX_PER_CLASS):
        return None
    if reached(2.0):
        return 2.0
    return math.exp(_edge(lambda x: reached(math.exp(x)), math.log(2), math.log(_MAX_PER_CLASS)))


def least_kept_share(
    cosines: Cosines, layer: Layer, batch: BatchShape, layers: int
) -> float | None:
    """Return the least ρ for which tokens with cosines ρa and ρb end in fusion after `layers`
    layers, or None if they do not with ρ = 1. An augmentation that keeps less is too strong."""

    def fuses(share: float) -> bool:
        return outcome(trajectory(scaled(cosines, share), layer, batch, layers)[-1]) == "fusion"

    if not fuses(1.0):
        return None
    shares = [1 - i / _STEPS for i in range(_STEPS + 1)]
    failing = next((share for share in shares if not fuses(share)), None)
    return 0.0 if failing is None else _edge(fuses, failing, failing + 1 / _STEPS)


def scaled(cosines: Cosines, share: float) -> Cosines:
    """Return all cosines times this share."""
    twin = None if cosines.twin is None else share * cosines.twin
    return Cosines(share * cosines.within, share * cosines.between, twin)


def simulated_minimum(
    cosines: Cosines, layer: Layer, batch: BatchShape, layers: int, seeds: Sequence[int]
) -> LimitCheck | None:
    """Return the predicted least n, and the n at which the mean a of random batches crosses
    `FUSED`, searched from a third of the prediction to three times the prediction."""
    predicted = minimum_per_class(cosines, layer, batch, layers)
    if predicted is None:
        return None

    def reached(n: float) -> bool:
        size = dataclasses.replace(batch, per_class=round(n))
        ends = [simulate(cosines, layer, size, layers, seed)[-1].within for seed in seeds]
        return sum(ends) / len(ends) >= FUSED

    simulated = _edge(reached, max(2.0, predicted / 3), 3 * predicted, within=0.5)
    return LimitCheck(cosines, layer, batch, predicted, simulated)


def simulated_share(
    cosines: Cosines, layer: Layer, batch: BatchShape, layers: int, seeds: Sequence[int]
) -> LimitCheck | None:
    """Return the predicted least ρ, and the ρ below which fewer than half of the random batches end
    in fusion."""
    predicted = least_kept_share(cosines, layer, batch, layers)
    if predicted is None:
        return None

    def fuses(share: float) -> bool:
        ends = [simulate(scaled(cosines, share), layer, batch, layers, seed)[-1] for seed in seeds]
        return sum(outcome(end) == "fusion" for end in ends) * 2 > len(ends)

    simulated = _edge(fuses, predicted / 2, min(1.0, 1.5 * predicted), within=0.002)
    return LimitCheck(cosines, layer, batch, predicted, simulated)


def _edge(holds: Callable[[float], bool], low: float, high: float, within: float = 1e-6) -> float:
    """Return where between `low` and `high` a condition begins to hold, by bisection."""
    while high - low > within:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return (low + high) / 2
