"""Monte Carlo simulation of real attention layers on random clusters of tokens."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from headwise import rng
from headwise.errors import UserError
from headwise.theory.map import BatchShape, Cosines, Layer

BLOCK_ROWS = 2048
"""Number of rows of the attention matrix in memory at once."""


def draw_tokens(
    cosines: Cosines, batch: BatchShape, seed: int
) -> tuple[Float[Tensor, "m w"], Int64[Tensor, " n"]]:
    """Return tokens of unit length with these cosines on average, and the labels of their images.

    x = μ_k + √(1−a)·ε. The class means have random directions and exactly the products |μ|² = a and
    b. The noise is uniform on the sphere, so it also has a part along the means, as real noise has.
    With twins, all first views come before all second views. Raises `UserError` if no such tokens
    exist.
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
    """Apply one layer to all tokens of a batch. Values are the tokens (`layer.alignment` is 1)."""
    assert layer.alignment == 1, "only values that are the tokens are simulated"
    parts = [(layer.beta * rows @ x.T).softmax(1) @ x for rows in x.split(BLOCK_ROWS)]
    y = layer.residual * x + torch.cat(parts)
    return F.normalize(y - y.mean(0) if layer.centred else y, dim=1)


def mean_cosines(x: Float[Tensor, "m w"], labels: Int64[Tensor, " n"], views: int) -> Cosines:
    """Return the mean cosines of a batch: `m` = views · n rows, all first views, then their twins.

    They come from sums over classes in float64, without a matrix of all pairs. The mean is 0 if
    there are no such pairs (no two images of a class, or only one class).
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


def simulate(
    cosines: Cosines, layer: Layer, batch: BatchShape, layers: int, seed: int
) -> list[Cosines]:
    """Return the cosines of one random batch before the first and after each of `layers` layers."""
    x, labels = draw_tokens(cosines, batch, seed)
    views = len(x) // len(labels)
    path = [mean_cosines(x, labels, views)]
    for _ in range(layers):
        x = attend(x, layer)
        path.append(mean_cosines(x, labels, views))
    return path


def map_error(predicted: Cosines, measured: Cosines) -> float:
    """Return the larger error of a' and b', relative to the measured value or, if that is smaller
    than 0.1, relative to 0.1."""
    pairs = zip(predicted[:2], measured[:2], strict=True)
    return max(abs(p - q) / max(abs(q), 0.1) for p, q in pairs)
