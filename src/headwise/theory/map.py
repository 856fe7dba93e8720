"""The effect of attention over a batch on clusters of tokens, as a mean-field map.

Tokens are rows of unit length: K classes of n tokens. The mean cosine of two tokens is a in the
same class, b in different classes, and t for twins. One layer is
x' = normalise(r·x + Σ_j softmax_j(β cos(x, x_j)) x_j). The map takes (a, b, t) to (a', b', t').
docs/theory.md derives the map and says where it fails.
"""

import itertools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from headwise.errors import UserError

FUSED = 0.9
"""The least within-class cosine of fused classes."""
MERGED = 0.5
"""The least between-class cosine of merged classes."""

Outcome = Literal["fusion", "over-fusion", "no fusion"]


class Cosines(NamedTuple):
    """Mean cosines of two tokens."""

    within: float
    """a: two tokens of one class that are not twins."""
    between: float
    """b: two tokens of different classes."""
    twin: float | None = None
    """t: two views of one image. None if tokens have no twins."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer of attention."""

    beta: float
    """Inverse temperature β of the softmax over cosines. If positive, similar tokens attend to each
    other more. In a Transformer whose queries and keys are its inputs, β is
    (length of query) · (length of key) / √d."""
    residual: float = 1.0
    """Residual weight r of the token itself; attention has weight 1."""
    alignment: float = 1.0
    """How well the directions of values and tokens agree: 1 if values are the tokens, 0 if one
    rotation turns all values in unrelated directions."""
    centred: bool = False
    """Whether the mean of all tokens is subtracted before normalisation, as BatchNorm does and
    LayerNorm does not."""


@dataclass(frozen=True, kw_only=True)
class BatchShape:
    """The number of tokens that attend to each other, and their dimension."""

    classes: int | float
    """K. For classes of unequal sizes: the number of all tokens over `per_class`."""
    per_class: int | float
    """n: the number of tokens of one class, including twins. For classes of unequal sizes: the
    size of a token's class, as the mean over tokens."""
    width: int | float
    """w: the number of dimensions in which tokens of one class differ."""

    def __post_init__(self) -> None:
        if self.classes < 1 or self.per_class < 1 or self.width < 2:
            raise UserError(
                "a batch of tokens needs at least 1 class, 1 token per class and width 2; got "
                f"{self.classes}, {self.per_class} and {self.width}"
            )


class Weights(NamedTuple):
    """The attention of a token to a single token, by relation: itself, its twin (if tokens have
    twins), a token of its class, a token of another class."""

    single: tuple[float, ...]
    counts: tuple[float, ...]
    """The number of tokens in each relation."""
    noise_tilt: float
    """The part of a token's own noise in the output, since tokens with similar noise weigh more."""
    class_tilt: float
    """The same for the direction of its class."""

    @property
    def masses(self) -> tuple[float, ...]:
        """The attention to all tokens of each relation. The sum is 1."""
        return tuple(map(operator.mul, self.single, self.counts))


class Gains(NamedTuple):
    """The squared factors of a layer for the modes of a batch, before normalisation."""

    noise: tuple[float, ...]
    """The differences between twins (if there are twins), then the differences within classes."""
    contrast: float
    """The differences between classes."""
    common: float
    """The mean of all tokens."""


def attention_weights(cosines: Cosines, beta: float, batch: BatchShape) -> Weights:
    """Return mean-field weights with the terms of finite width that matter (docs/theory.md)."""
    levels = _levels(cosines)
    counts = _counts(levels, batch)
    single = _softmax(cosines, beta, batch, (0.5, 0.5))
    # Repeated with the masses of the own class and of each other class, which are now known.
    single = _softmax(cosines, beta, batch, tuple(x * batch.per_class for x in single[-2:]))
    # The attention's output has squared length `squared`. 1 − `squared` is the keys' variance.
    sizes = _sizes(levels, batch)
    pairs = zip(_modes(single, sizes), _modes(levels, sizes), strict=True)
    squared = _mean([u**2 * g for u, g in pairs], sizes)
    return Weights(
        single,
        counts,
        noise_tilt=beta * (1 - squared) / batch.width,
        class_tilt=beta * (1 - cosines.within) ** 3 * (1 - single[0]) / batch.width,
    )


def gains(weights: Weights, layer: Layer, batch: BatchShape) -> Gains:
    """Return the factors of the layer, which acts on the modes as a filter."""
    *noise, contrast, common = _modes(weights.single, _sizes(weights.single, batch))
    tilted = [*(u + weights.noise_tilt for u in noise)]
    tilted += [contrast + weights.class_tilt, common + weights.class_tilt]
    r, zeta = layer.residual, layer.alignment
    squared = [r**2 + 2 * zeta * r * u + u**2 for u in tilted]
    return Gains(tuple(squared[:-2]), squared[-2], 0.0 if layer.centred else squared[-1])


def mixed(cosines: Cosines, weights: Weights, layer: Layer, batch: BatchShape) -> Cosines:
    """Return the cosines after a layer with these weights, at unit length."""
    levels = _levels(cosines)
    sizes = _sizes(levels, batch)
    noise, contrast, common = gains(weights, layer, batch)
    factors = (*noise, contrast, common)
    modes = [max(g, 0.0) * f for g, f in zip(_modes(levels, sizes), factors, strict=True)]
    length = _mean(modes, sizes) or 1.0  # 0 if all tokens are equal and their mean is subtracted
    _, *twin, within, between = (v / length for v in _values(modes, sizes))
    return Cosines(within, between, twin[0] if twin else None)


def next_cosines(cosines: Cosines, layer: Layer, batch: BatchShape) -> Cosines:
    """Return (a', b', t'), the map of (a, b, t)."""
    return mixed(cosines, attention_weights(cosines, layer.beta, batch), layer, batch)


def trajectory(cosines: Cosines, layer: Layer, batch: BatchShape, layers: int) -> list[Cosines]:
    """Return the cosines before the first and after each of `layers` equal layers."""
    path = [cosines]
    for _ in range(layers):
        path.append(next_cosines(path[-1], layer, batch))
    return path


def outcome(cosines: Cosines) -> Outcome:
    """Return the state of the classes: no fusion (a below `FUSED`), over-fusion (fused, and b at
    least `MERGED`, so that classes are also fused with each other), or fusion."""
    if cosines.within < FUSED:
        return "no fusion"
    return "over-fusion" if cosines.between >= MERGED else "fusion"


def layers_until(
    target: Outcome, cosines: Cosines, layer: Layer, batch: BatchShape, limit: int = 1000
) -> int | None:
    """Return the first number of layers with this outcome, or None if it is above `limit`."""
    for count in range(limit + 1):
        if outcome(cosines) == target:
            return count
        cosines = next_cosines(cosines, layer, batch)
    return None


def separation(cosines: Cosines) -> float:
    """Return (a − b)/(1 − b), for many tokens the share of the variance between classes."""
    return (cosines.within - cosines.between) / max(1 - cosines.between, 1e-12)


def fusion_gain(weights: Weights) -> float:
    """Return the attention to the own class over its chance value, without self and twin. 1 if
    there are no other tokens."""
    *_, within, between = weights.masses
    *_, same, other = weights.counts
    if same <= 0 or within + between <= 0:
        return 1.0
    return within / (within + between) * (same + other) / same


def _softmax(
    cosines: Cosines, beta: float, batch: BatchShape, class_masses: Sequence[float]
) -> tuple[float, ...]:
    """Return the weights of single tokens. If cosines vary, over keys or over queries with noise
    towards a class, the mean weight exceeds that of the mean cosine, because exp is convex."""
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
    """Return the cosines by relation, nearest first."""
    twin = () if cosines.twin is None else (cosines.twin,)
    return (1.0, *twin, cosines.within, cosines.between)


def _sizes(levels: Sequence[float], batch: BatchShape) -> tuple[float, ...]:
    """Return the sizes of the nested groups of the relations: one token, twins, a class, all."""
    n = float(batch.per_class)
    return (1.0, *[2.0] * (len(levels) - 3), n, batch.classes * n)


def _counts(levels: Sequence[float], batch: BatchShape) -> tuple[float, ...]:
    sizes = _sizes(levels, batch)
    return (1.0, *(after - size for size, after in itertools.pairwise(sizes)))


def _modes(levels: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """Return the eigenvalues of a symmetric matrix whose entries depend only on the relation: first
    of vectors that differ within the smallest groups, and last of the constant vector."""
    steps = (near - far for near, far in itertools.pairwise((*levels, 0.0)))
    return list(itertools.accumulate(map(operator.mul, steps, sizes)))


def _values(modes: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """Return the entries by relation, the inverse of `_modes`."""
    steps = [(m - before) / s for before, m, s in zip((0.0, *modes), modes, sizes, strict=False)]
    return list(itertools.accumulate(reversed(steps)))[::-1]


def _mean(modes: Sequence[float], sizes: Sequence[float]) -> float:
    """Return the mean eigenvalue, which is the mean of the diagonal."""
    shares = (1 / size - 1 / after for size, after in itertools.pairwise((*sizes, math.inf)))
    return sum(map(operator.mul, shares, modes))
