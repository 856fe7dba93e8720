"""The affinity loss of TransFusion (arXiv 2403.18681v1), with our own derivation. It compares the
similarity of the rows with a target similarity."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from headwise.losses.dense import alike, projections


def affinity_loss(
    z0: Float[Tensor, "n d"], z1: Float[Tensor, "n d"], labels: Int64[Tensor, " n"] | None = None
) -> Float[Tensor, ""]:
    """Return the divergence of the projections' affinity from the target in nats, at most log 2.
    It is 0 if every row is collinear with its twin (with `labels`: with its class) and orthogonal
    to all other rows, which needs `d` of at least the number of images (of classes). Raises
    `UserError` for views of different shapes and for another number of labels."""
    rows = affinity(z0, z1)
    return js_divergence(rows, target_affinity(len(z0), rows.device, rows.dtype, labels))


def affinity(z0: Float[Tensor, "n d"], z1: Float[Tensor, "n d"]) -> Float[Tensor, "m m"]:
    """Return the similarity of each of the `m = 2n` projections to the others: squared cosines with
    a zero diagonal, divided by their sum in the row.

    Rows and columns hold all first views, then their twins, so twins are `n` apart. The paper's
    (cos/τ)² has a temperature, but the division by the row sum cancels it. Because of the square,
    rows that point in opposite directions count as similar. If a projection is orthogonal to all
    others, its row is zero. The result is float32 (float64 for float64 input).
    """
    with torch.autocast(z0.device.type, enabled=False):
        z = projections(z0, z1)
        squared = (z @ z.T).square().fill_diagonal_(0)
        total = squared.sum(1, keepdim=True)
        return squared / total.where(total > torch.finfo(total.dtype).tiny, 1)


def target_affinity(
    n: int, device: torch.device, dtype: torch.dtype, labels: Int64[Tensor, " n"] | None = None
) -> Float[Tensor, "m m"]:
    """Return the target affinity for `n` images: each row gives 1 to its twin. With `labels`, it
    gives equal parts to the other rows of its class; an image with label −1 gives 1 to its twin."""
    positives = alike(n, device, labels).to(dtype)
    return positives / positives.sum(1, keepdim=True)


def js_divergence(p: Float[Tensor, "m k"], q: Float[Tensor, "m k"]) -> Float[Tensor, ""]:
    """Return the symmetric Jensen-Shannon divergence of the distributions in the rows, in nats:
    the mean over rows, within [0, log 2]. 0 · log 0 is 0, with a finite gradient (the exact
    gradient is infinite)."""
    middle = _log((p + q) / 2)
    return (p * (_log(p) - middle) + q * (_log(q) - middle)).sum(1).mean() / 2


def _log(p: Tensor) -> Tensor:
    return p.clamp(min=torch.finfo(p.dtype).tiny).log()
