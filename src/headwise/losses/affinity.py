"""The affinity loss of TransFusion (arXiv 2403.18681v1), derived anew: which rows resemble each
other, against which rows should."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from headwise.losses.dense import normalised


def affinity_loss(
    z0: Float[Tensor, "n d"], z1: Float[Tensor, "n d"], labels: Int64[Tensor, " n"] | None = None
) -> Float[Tensor, ""]:
    """The divergence, in nats, of the projections' affinity from the target: 0 where every row is
    collinear with its twin (with `labels`, with its class) and orthogonal to all others, which
    takes `d` of at least the number of images (of classes). At most log 2."""
    found = affinity(z0, z1)
    return js_divergence(found, target_affinity(len(z0), found.device, found.dtype, labels))


def affinity(z0: Float[Tensor, "n d"], z1: Float[Tensor, "n d"]) -> Float[Tensor, "m m"]:
    """How the attention of each of the `m = 2n` projections spreads over the others: squared
    cosines, nothing for itself, over their sum in the row.

    Rows and columns are in one order, first views then twins, so the diagonal is self and twins
    are `n` apart. The paper's (cos/τ)² has a temperature; the division by the row's sum cancels it,
    so there is none. The square forgets the sign: opposite rows count as alike. The row of a
    projection that is orthogonal to all others stays zero. In float32 (float64 for float64).
    """
    with torch.autocast(z0.device.type, enabled=False):
        z = normalised(z0, z1)
        squared = (z @ z.T).square().fill_diagonal_(0)
        total = squared.sum(1, keepdim=True)
        return squared / total.where(total > torch.finfo(total.dtype).tiny, 1)


def target_affinity(
    n: int, device: torch.device, dtype: torch.dtype, labels: Int64[Tensor, " n"] | None = None
) -> Float[Tensor, "m m"]:
    """The affinity to reach for `n` images: all of a row on its twin. With `labels`, in equal
    parts on the other rows of its class; an image labelled −1 resembles its twin alone."""
    group = torch.arange(n, device=device)
    if labels is not None:
        group = labels.where(labels >= 0, -1 - group)
    group = group.repeat(2)
    alike = (group[:, None] == group).to(dtype).fill_diagonal_(0)
    return alike / alike.sum(1, keepdim=True)


def js_divergence(p: Float[Tensor, "m k"], q: Float[Tensor, "m k"]) -> Float[Tensor, ""]:
    """The symmetric Jensen-Shannon divergence of the distributions in the rows, in nats, mean over
    the rows: within [0, log 2]. 0 · log 0 is 0, with a finite gradient (the exact one is not)."""
    middle = _log((p + q) / 2)
    return (p * (_log(p) - middle) + q * (_log(q) - middle)).sum(1).mean() / 2


def _log(p: Tensor) -> Tensor:
    return p.clamp(min=torch.finfo(p.dtype).tiny).log()
