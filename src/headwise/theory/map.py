"""What attention over a batch does to clusters of tokens: a mean-field map, and what follows.

Tokens are rows of unit length in K classes of n. Two of one class have the mean cosine a, two of
different classes b, twins t. One layer is x' = normalise(r·x + Σ_j softmax_j(β cos(x, x_j)) x_j).
The map takes (a, b, t) to (a', b', t'); docs/theory.md derives it and says where it fails.
"""

import itertools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from headwise.errors import UserError

FUSED = 0.9
"""Classes count as fused from this within-class cosine on."""
MERGED = 0.5
"""Classes count as merged from this between-class cosine on."""

Outcome = Literal["fusion", "over-fusion", "no fusion"]


class Cosines(NamedTuple):
    """Mean cosines of two tokens."""

    within: float
    """a: of one class (not twins)."""
    between: float
    """b: of different classes."""
    twin: float | None = None
    """t: of two views of one image; None where tokens have no twins."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer of attention."""

    beta: float
    """Inverse temperature β of the softmax over cosines. Positive: like attends to like. In a
    Transformer whose queries and keys are its inputs, (length of query) · (length of key) / √d."""
    residual: float = 1.0
    """Residual weight r: what a token keeps of itself beside what attention brings."""
    alignment: float = 1.0
    """How far values point where tokens do: 1 where values are the tokens, 0 where they are turned
    in unrelated directions (all by the same turn)."""
    centred: bool = False
    """Whether the mean of all tokens is taken off before they get unit length, as BatchNorm does
    and LayerNorm does not."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """How many tokens attend to each other."""

    classes: int | float
    """K. Unequal classes: all tokens over `per_class`."""
    per_class: int | float
    """n: tokens of one class, with their twins where there are any. Unequal classes: the mean
    over tokens of the size of their class."""
    width: int | float
    """w: dimensions in which tokens of one class differ."""

    def __post_init__(self) -> None:
        if self.classes < 1 or self.per_class < 1 or self.width < 2:
            raise UserError(
                "a batch of tokens needs at least 1 class, 1 token per class and width 2; got "
                f"{self.classes}, {self.per_class} and {self.width}"
            )


class Weights(NamedTuple):
    """Attention of a token to one single token, by their relation, nearest first: itself, its twin
    (where tokens have twins), one of its class, one of another class."""

    each: tuple[float, ...]
    counts: tuple[float, ...]
    """How many tokens stand in each relation."""
    noise_tilt: float
    """What comes back of a token's own noise because tokens that happen to share it weigh more."""
    class_tilt: float
    """The same for its class's direction."""

    @property
    def masses(self) -> tuple[float, ...]:
        """Attention by relation; the sum is 1."""
        return tuple(map(operator.mul, self.each, self.counts))


class Gains(NamedTuple):
    """Squared factors by which a layer multiplies the modes of a batch, before unit length."""

    noise: tuple[float, ...]
    """What differs between twins (where there are twins), then what differs within classes."""
    contrast: float
    """What differs between classes."""
    common: float
    """The mean of all tokens."""


def attention_weights(cosines: Cosines, beta: float, batch: Batch) -> Weights:
    """Mean-field weights, with the terms of finite width that matter (docs/theory.md, step 2)."""
    levels = _levels(cosines)
    counts = _counts(levels, batch)
    each = _softmax(cosines, beta, batch, (0.5, 0.5))
    # Once more, now that the masses of the own class and of each other class are known.
    each = _softmax(cosines, beta, batch, tuple(x * batch.per_class for x in each[-2:]))
    # What attention brings has squared length `squared`; the rest of 1 is variance among keys.
    sizes = _sizes(levels, batch)
    pairs = zip(_modes(each, sizes), _modes(levels, sizes), strict=True)
    squared = _mean([u**2 * g for u, g in pairs], sizes)
    return Weights(
        each,
        counts,
        noise_tilt=beta * (1 - squared) / batch.width,
        class_tilt=beta * (1 - cosines.within) ** 3 * (1 - each[0]) / batch.width,
    )


def gains(weights: Weights, layer: Layer, batch: Batch) -> Gains:
    """The layer as a filter on the modes."""
    *noise, contrast, common = _modes(weights.each, _sizes(weights.each, batch))
    tilted = [*(u + weights.noise_tilt for u in noise)]
    tilted += [contrast + weights.class_tilt, common + weights.class_tilt]
    r, zeta = layer.residual, layer.alignment
    squared = [r**2 + 2 * zeta * r * u + u**2 for u in tilted]
    return Gains(tuple(squared[:-2]), squared[-2], 0.0 if layer.centred else squared[-1])


def mixed(cosines: Cosines, weights: Weights, layer: Layer, batch: Batch) -> Cosines:
    """The cosines after the layer's sum with these weights, at unit length."""
    levels = _levels(cosines)
    sizes = _sizes(levels, batch)
    by = gains(weights, layer, batch)
    factors = (*by.noise, by.contrast, by.common)
    modes = [max(g, 0.0) * f for g, f in zip(_modes(levels, sizes), factors, strict=True)]
    length = _mean(modes, sizes) or 1.0  # equal tokens whose mean is taken off: nothing is left
    _, *twin, within, between = (v / length for v in _values(modes, sizes))
    return Cosines(within, between, twin[0] if twin else None)


def next_cosines(cosines: Cosines, layer: Layer, batch: Batch) -> Cosines:
    """The map (a, b, t) to (a', b', t')."""
    return mixed(cosines, attention_weights(cosines, layer.beta, batch), layer, batch)


def trajectory(cosines: Cosines, layer: Layer, batch: Batch, layers: int) -> list[Cosines]:
    """The cosines before, and after each of `layers` equal layers."""
    found = [cosines]
    for _ in range(layers):
        found.append(next_cosines(found[-1], layer, batch))
    return found


def outcome(cosines: Cosines) -> Outcome:
    """What has become of the classes: no fusion (a below `FUSED`), over-fusion (fused, and b at
    least `MERGED`: the classes with each other as well), or fusion."""
    if cosines.within < FUSED:
        return "no fusion"
    return "over-fusion" if cosines.between >= MERGED else "fusion"


def layers_until(
    wanted: Outcome, cosines: Cosines, layer: Layer, batch: Batch, most: int = 1000
) -> int | None:
    """The first number of layers with this outcome; None where it is not reached in `most`."""
    for count in range(most + 1):
        if outcome(cosines) == wanted:
            return count
        cosines = next_cosines(cosines, layer, batch)
    return None


def separation(cosines: Cosines) -> float:
    """(a − b)/(1 − b): the share of the variance that lies between classes, for many tokens."""
    return (cosines.within - cosines.between) / max(1 - cosines.between, 1e-12)


def fusion_gain(weights: Weights) -> float:
    """Attention to tokens of the own class over its chance value, self and twin left out. 1 where
    there are no others."""
    *_, within, between = weights.masses
    *_, same, other = weights.counts
    if same <= 0 or within + between <= 0:
        return 1.0
    return within / (within + between) * (same + other) / same


def _softmax(
    cosines: Cosines, beta: float, batch: Batch, class_masses: Sequence[float]
) -> tuple[float, ...]:
    """Weights of single tokens. Tokens whose cosines spread get more than their mean cosine says,
    as exp is convex: over keys, and over queries by how near their noise is to a class."""
    levels, noise = _levels(cosines), 1 - cosines.within
    contrast = max(cosines.within - cosines.between, 0.0)
    classes = [noise * (1 + contrast * (1 - 2 * mass)) for mass in class_masses]
    spreads = [0.0, *(1 - t for t in levels[1:-2]), *classes]
    scale = beta**2 / (2 * batch.width)
    logits = [beta * c + scale * s for c, s in zip(levels, spreads, strict=True)]
    counts = _counts(levels, batch)
    top = max(logit for logit, count in zip(logits, counts, strict=True) if count)
    raw = [math.exp(x - top) if n else 0.0 for x, n in zip(logits, counts, strict=True)]
    total = sum(map(operator.mul, raw, counts))
    return tuple(x / total for x in raw)


def _levels(cosines: Cosines) -> tuple[float, ...]:
    """Cosines by relation, nearest first."""
    twin = () if cosines.twin is None else (cosines.twin,)
    return (1.0, *twin, cosines.within, cosines.between)


def _sizes(levels: Sequence[float], batch: Batch) -> tuple[float, ...]:
    """Tokens in the nested groups that the relations make: one, twins, a class, all."""
    n = float(batch.per_class)
    return (1.0, *[2.0] * (len(levels) - 3), n, batch.classes * n)


def _counts(levels: Sequence[float], batch: Batch) -> tuple[float, ...]:
    sizes = _sizes(levels, batch)
    return (1.0, *(after - size for size, after in itertools.pairwise(sizes)))


def _modes(levels: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """The eigenvalues of a symmetric matrix whose entries depend on the relation alone: of vectors
    that differ within the smallest groups, …, and of the constant vector."""
    steps = (near - far for near, far in itertools.pairwise((*levels, 0.0)))
    return list(itertools.accumulate(map(operator.mul, steps, sizes)))


def _values(modes: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """The inverse of `_modes`."""
    steps = [(m - before) / s for before, m, s in zip((0.0, *modes), modes, sizes, strict=False)]
    return list(itertools.accumulate(reversed(steps)))[::-1]


def _mean(modes: Sequence[float], sizes: Sequence[float]) -> float:
    """The mean eigenvalue, which is the mean of the diagonal."""
    shares = (1 / size - 1 / after for size, after in itertools.pairwise((*sizes, math.inf)))
    return sum(map(operator.mul, shares, modes))
