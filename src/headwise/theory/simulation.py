"""Monte Carlo: real attention layers on random clusters of tokens, to hold the theory against."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from headwise import rng
from headwise.errors import UserError
from headwise.theory.map import Batch, Cosines, Layer

BLOCK_ROWS = 2048
"""Rows of the attention matrix that are held at once."""


def draw_tokens(
    cosines: Cosines, batch: Batch, seed: int
) -> tuple[Float[Tensor, "m w"], Int64[Tensor, " n"]]:
    """Tokens of unit length with these cosines on average, and the labels of their images.

    x = μ_k + √(1−a)·ε. The class means have exactly the cosines |μ|² = a and b, in directions that
    are random; the noise is uniform on the sphere, so that it also has a part along the means, as
    noise of any real origin does. With twins the rows are all first views, then all second ones.
    Raises `UserError` where no such tokens exist.
    """
    a, b, classes, width = cosines.within, cosines.between, int(batch.classes), int(batch.width)
    if not (-1 <= b <= a <= 1 and a + (classes - 1) * b >= -1e-9 and a >= 0):
        raise UserError(
            "tokens need cosines with b at most a, a from 0 to 1, and b at least −a/(K − 1); "
            f"got a = {a}, b = {b}, K = {classes}"
        )
    if classes > width:
        raise UserError(f"class means need a width of at least K; got {width} and {classes}")
    views = 1 if cosines.twin is None else 2
    images = int(batch.per_class) // views
    generator = rng.generator(seed, "tokens")

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    gram = torch.full((classes, classes), b, dtype=torch.float64).fill_diagonal_(a)
    values, vectors = torch.linalg.eigh(gram)
    axes = torch.linalg.qr(normal(width, classes)).Q
    means = vectors * values.clamp(min=0).sqrt() @ axes.T
    labels = torch.arange(classes).repeat_interleave(images)
    noise = F.normalize(normal(views, len(labels), width), dim=2)
    if cosines.twin is not None:
        shared = max(0.0, (cosines.twin - a) / (1 - a)) if a < 1 else 1.0
        own = F.normalize(normal(len(labels), width), dim=1)
        noise = F.normalize(shared**0.5 * own + (1 - shared) ** 0.5 * noise, dim=2)
    tokens = means[labels] + (1 - a) ** 0.5 * noise
    return F.normalize(tokens.reshape(-1, width), dim=1), labels


def attend(x: Float[Tensor, "m w"], layer: Layer) -> Float[Tensor, "m w"]:
    """One layer on all tokens of a batch. Values are the tokens (`layer.alignment` is 1)."""
    assert layer.alignment == 1, "turned values are not simulated"
    parts = [(layer.beta * rows @ x.T).softmax(1) @ x for rows in x.split(BLOCK_ROWS)]
    y = layer.residual * x + torch.cat(parts)
    return F.normalize(y - y.mean(0) if layer.centred else y, dim=1)


def mean_cosines(x: Float[Tensor, "m w"], labels: Int64[Tensor, " n"], views: int) -> Cosines:
    """The mean cosines of a batch: `m` = views · n rows, first all first views, then their twins.

    From sums over classes, in float64: no matrix of all pairs. A pair that does not exist (no two
    images of a class; one class) counts as 0.
    """
    x = F.normalize(x.double(), dim=1)
    y = labels.unique(return_inverse=True)[1].repeat(views)
    sums = x.new_zeros(int(y.max()) + 1, x.shape[1]).index_add_(0, y, x)
    sizes = y.bincount().double()
    twins = 2 * (x[: len(labels)] * x[len(labels) :]).sum().item() if views == 2 else 0.0
    own = sums.square().sum().item()
    same = sizes.square().sum().item() - len(x) * views
    other = len(x) ** 2 - sizes.square().sum().item()
    within = (own - len(x) - twins) / same if same else 0.0
    between = (sums.sum(0).square().sum().item() - own) / other if other else 0.0
    return Cosines(within, between, twins / len(x) if views == 2 else None)


def simulate(cosines: Cosines, layer: Layer, batch: Batch, layers: int, seed: int) -> list[Cosines]:
    """What is measured in one random batch: before, and after each of `layers` layers."""
    x, labels = draw_tokens(cosines, batch, seed)
    views = len(x) // len(labels)
    found = [mean_cosines(x, labels, views)]
    for _ in range(layers):
        x = attend(x, layer)
        found.append(mean_cosines(x, labels, views))
    return found


def map_error(predicted: Cosines, measured: Cosines) -> float:
    """The larger of the errors of a' and b': relative to the measured value, or to 0.1 where that
    is nearer 0 (so 0.02 is 2 %, and 0.002 absolute for small values)."""
    pairs = zip(predicted[:2], measured[:2], strict=True)
    return max(abs(p - q) / max(abs(q), 0.1) for p, q in pairs)
