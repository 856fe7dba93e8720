"""The computations of `headwise theory`: the map compared with random batches at fixed settings."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from headwise.theory.limits import LimitCheck, simulated_minimum, simulated_share
from headwise.theory.map import (
    BatchShape,
    Cosines,
    Layer,
    Outcome,
    next_cosines,
    outcome,
    trajectory,
)
from headwise.theory.simulation import map_error, simulate

OUTCOMES: tuple[Outcome, ...] = ("no fusion", "fusion", "over-fusion")

# The range in which the map's error is below 2 % (docs/theory.md), for n ≥ 64 and w ≥ 256.
BETAS = (0.0, 2.0, 4.0, 6.0, 8.0, 12.0, 16.0)
RESIDUALS = (0.5, 1.0, 2.0)
WITHIN = (0.05, 0.15, 0.3, 0.6, 0.9)
SHARES = (None, 0.0, 0.5, 0.9)
"""b over a. None means centred tokens, b = −a/(K − 1): the mean of all tokens is 0."""
CLASSES = (2, 10)
SIZE = {"per_class": 64, "width": 256}

PHASE_LAYERS = 4
PHASE_SHARE = 0.2
PHASE_BATCHES = tuple(
    BatchShape(classes=classes, per_class=n, width=256) for classes in (2, 10) for n in (8, 32, 128)
)
LIMIT_LAYERS = 4


class MapPoint(NamedTuple):
    """One layer on one random batch."""

    before: Cosines
    layer: Layer
    batch: BatchShape
    predicted: Cosines
    simulated: Cosines
    error: float
    """The larger error of a' and b', relative to the simulated value or to 0.1."""


class PhasePoint(NamedTuple):
    """The predicted and the simulated outcome at one β and noise."""

    beta: float
    noise: float
    predicted: Outcome
    simulated: Outcome


class Phases(NamedTuple):
    """The outcomes after `PHASE_LAYERS` layers of residual 1, by β and noise 1 − a."""

    batch: BatchShape
    betas: tuple[float, ...]
    noises: tuple[float, ...]
    outcomes: Int[np.ndarray, "noises betas"]
    """Indices into `OUTCOMES`."""
    points: tuple[PhasePoint, ...]


class LayerPath(NamedTuple):
    """One batch through many layers. The prediction uses only the first cosines."""

    name: str
    layer: Layer
    batch: BatchShape
    predicted: tuple[Cosines, ...]
    simulated: tuple[Cosines, ...]


def map_points(seed: int = 0) -> Iterator[MapPoint]:
    """Yield points over the whole stated range."""
    grid = itertools.product(CLASSES, WITHIN, SHARES, BETAS, RESIDUALS)
    for classes, a, share, beta, residual in grid:
        cosines = start(a, share, classes)
        batch = BatchShape(classes=classes, **SIZE)
        yield map_point(cosines, Layer(beta=beta, residual=residual), batch, seed)


def points_outside(seed: int = 0) -> Iterator[tuple[str, MapPoint]]:
    """Yield points where an assumption of the map does not hold, with the name of the case."""
    cases = (
        ("r = 0", 64, 256, (1.0, 2.0, 4.0, 6.0, 8.0), 0.0),
        ("β < 0", 64, 256, (-8.0, -4.0, -2.0), 0.5),
        ("n = 4", 4, 256, (2.0, 4.0, 6.0, 8.0), 0.5),
        ("w = 32", 64, 32, (2.0, 4.0, 6.0, 8.0), 0.5),
    )
    for name, n, width, betas, residual in cases:
        for classes, a, share, beta in itertools.product(CLASSES, WITHIN, SHARES[:3], betas):
            batch = BatchShape(classes=classes, per_class=n, width=width)
            layer = Layer(beta=beta, residual=residual)
            yield name, map_point(start(a, share, classes), layer, batch, seed)


def map_point(cosines: Cosines, layer: Layer, batch: BatchShape, seed: int) -> MapPoint:
    """Compare the map with one random batch. The map gets the batch's measured cosines."""
    before, after = simulate(cosines, layer, batch, 1, seed)
    predicted = next_cosines(before, layer, batch)
    return MapPoint(before, layer, batch, predicted, after, map_error(predicted, after))


def start(a: float, share: float | None, classes: int) -> Cosines:
    return Cosines(a, -a / (classes - 1) if share is None else share * a)


def phases(batch: BatchShape, seed: int = 0, fields: int = 61) -> Phases:
    """Return the diagram of the map, and thirty random batches."""
    betas = tuple(float(x) for x in np.linspace(0, 20, fields))
    noises = tuple(float(x) for x in np.linspace(0.05, 0.95, fields))
    layers = {beta: Layer(beta=beta) for beta in betas}
    outcomes = np.array(
        [[OUTCOMES.index(_end(noise, layers[beta], batch)) for beta in betas] for noise in noises]
    )
    points = []
    for beta, noise in itertools.product((1, 4, 7, 10, 14, 18), (0.1, 0.3, 0.5, 0.7, 0.9)):
        layer = Layer(beta=float(beta))
        ends = simulate(_noisy(noise), layer, batch, PHASE_LAYERS, seed)
        points.append(PhasePoint(float(beta), noise, _end(noise, layer, batch), outcome(ends[-1])))
    return Phases(batch, betas, noises, outcomes, tuple(points))


def paths(seed: int = 0, layers: int = 24) -> list[LayerPath]:
    """Return the path of one batch for each outcome, and of one whose mean is removed."""
    batch = BatchShape(classes=10, **SIZE)
    cases = (
        ("fusion, then over-fusion", Layer(beta=7.5), Cosines(0.6, 0.1)),
        ("over-fusion at once", Layer(beta=3.0), Cosines(0.6, 0.1)),
        ("no fusion", Layer(beta=16.0), Cosines(0.3, 0.05)),
        ("mean removed: fusion stays", Layer(beta=3.0, centred=True), Cosines(0.6, 0.1)),
    )
    result = []
    for name, layer, cosines in cases:
        simulated = simulate(cosines, layer, batch, layers, seed)
        predicted = trajectory(simulated[0], layer, batch, layers)
        result.append(LayerPath(name, layer, batch, tuple(predicted), tuple(simulated)))
    return result


def minimum_checks(seeds: Sequence[int] = (0, 1, 2)) -> list[LimitCheck]:
    """Return the least n for fusion after `LIMIT_LAYERS` layers, by β and a, if within 4 to 120."""
    checks = []
    for a, beta in itertools.product((0.3, 0.4, 0.5), (4.0, 5.0, 6.0, 7.0, 8.0)):
        batch = BatchShape(classes=10, **SIZE)
        check = simulated_minimum(Cosines(a, 0.1), Layer(beta=beta), batch, LIMIT_LAYERS, seeds)
        checks += [check] if check is not None and 4 < check.predicted < 120 else []
    return checks


def share_checks(seeds: Sequence[int] = (0, 1, 2)) -> list[LimitCheck]:
    """Return the least kept share of cosines 0.8 and 0.1, by β and n."""
    checks = []
    for n, beta in itertools.product((16, 64), (5.0, 5.5, 6.0, 7.0, 8.0, 10.0, 12.0)):
        batch = BatchShape(classes=10, per_class=n, width=256)
        check = simulated_share(Cosines(0.8, 0.1), Layer(beta=beta), batch, LIMIT_LAYERS, seeds)
        checks += [] if check is None else [check]
    return checks


def _noisy(noise: float) -> Cosines:
    return Cosines(1 - noise, PHASE_SHARE * (1 - noise))


def _end(noise: float, layer: Layer, batch: BatchShape) -> Outcome:
    return outcome(trajectory(_noisy(noise), layer, batch, PHASE_LAYERS)[-1])
