"""How small a batch, and how strong an augmentation, still lets classes fuse: from the map, and
from simulation.

More tokens of a class make its mass win over that of the token itself. Stronger augmentation keeps
less of what views share: all cosines fall to a share ρ of theirs.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from headwise.theory.map import FUSED, Batch, Cosines, Layer, outcome, trajectory
from headwise.theory.simulation import simulate

_MOST_PER_CLASS = 2.0**20
_STEPS = 40


class LimitCheck(NamedTuple):
    """A limit that the map predicts, and where random batches have it."""

    cosines: Cosines
    layer: Layer
    batch: Batch
    predicted: float
    simulated: float


def balance_per_class(cosines: Cosines, beta: float, width: int | float) -> float:
    """The number of tokens per class at which the class has as much of a token's attention as the
    token itself: 1 + exp(β(1 − a) − β²(1 − a)/2w). Fewer: each keeps to itself."""
    noise = 1 - cosines.within
    return 1 + math.exp(beta * noise - beta**2 * noise / (2 * width))


def minimum_per_class(cosines: Cosines, layer: Layer, batch: Batch, layers: int) -> float | None:
    """The least n with which `layers` layers bring a to `FUSED`; `batch.per_class` is not read.
    None where no n does."""

    def reached(n: float) -> bool:
        size = dataclasses.replace(batch, per_class=n)
        return trajectory(cosines, layer, size, layers)[-1].within >= FUSED

    if not reached(_MOST_PER_CLASS):
        return None
    if reached(2.0):
        return 2.0
    return math.exp(_edge(lambda x: reached(math.exp(x)), math.log(2), math.log(_MOST_PER_CLASS)))


def least_kept_share(cosines: Cosines, layer: Layer, batch: Batch, layers: int) -> float | None:
    """The least ρ for which tokens with cosines ρa and ρb still end in fusion after `layers`
    layers: augmentation that keeps less is too strong. None where ρ = 1 does not end so."""

    def fuses(share: float) -> bool:
        return outcome(trajectory(kept(cosines, share), layer, batch, layers)[-1]) == "fusion"

    if not fuses(1.0):
        return None
    shares = [1 - i / _STEPS for i in range(_STEPS + 1)]
    first_bad = next((share for share in shares if not fuses(share)), None)
    return 0.0 if first_bad is None else _edge(fuses, first_bad, first_bad + 1 / _STEPS)


def kept(cosines: Cosines, share: float) -> Cosines:
    """The cosines of tokens of which augmentation keeps this share."""
    twin = None if cosines.twin is None else share * cosines.twin
    return Cosines(share * cosines.within, share * cosines.between, twin)


def simulated_minimum(
    cosines: Cosines, layer: Layer, batch: Batch, layers: int, seeds: Sequence[int]
) -> LimitCheck | None:
    """The predicted least n, and the one at which the mean a of random batches crosses `FUSED`; it
    is looked for from a third of the prediction to three times it."""
    predicted = minimum_per_class(cosines, layer, batch, layers)
    if predicted is None:
        return None

    def reached(n: float) -> bool:
        size = dataclasses.replace(batch, per_class=round(n))
        ends = [simulate(cosines, layer, size, layers, seed)[-1].within for seed in seeds]
        return sum(ends) / len(ends) >= FUSED

    found = _edge(reached, max(2.0, predicted / 3), 3 * predicted, within=0.5)
    return LimitCheck(cosines, layer, batch, predicted, found)


def simulated_share(
    cosines: Cosines, layer: Layer, batch: Batch, layers: int, seeds: Sequence[int]
) -> LimitCheck | None:
    """The predicted least ρ, and the one below which fewer than half the random batches end in
    fusion."""
    predicted = least_kept_share(cosines, layer, batch, layers)
    if predicted is None:
        return None

    def fuses(share: float) -> bool:
        ends = [simulate(kept(cosines, share), layer, batch, layers, seed)[-1] for seed in seeds]
        return sum(outcome(end) == "fusion" for end in ends) * 2 > len(ends)

    found = _edge(fuses, predicted / 2, min(1.0, 1.5 * predicted), within=0.002)
    return LimitCheck(cosines, layer, batch, predicted, found)


def _edge(holds: Callable[[float], bool], low: float, high: float, within: float = 1e-6) -> float:
    """Where a condition begins to hold between `low` and `high`, by halving."""
    while high - low > within:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return (low + high) / 2
