"""Losses: pure functions of tensors, in float32 whatever the autocast."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor


def contrastive_logits(
    z0: Float[Tensor, "n d"], z1: Float[Tensor, "n d"], temperature: float
) -> tuple[Float[Tensor, "m m"], Int64[Tensor, " m"]]:
    """The logits of the contrastive task and, for each anchor, the column of its positive.

    Rows are anchors, columns candidates, both the `m = 2n` projections of the two views; an entry
    is the cosine similarity over the temperature. A projection is never its own candidate (−∞).
    Normalised in float32: in half precision the norm's guard against zero is itself zero.
    """
    n = len(z0)
    with torch.autocast(z0.device.type, enabled=False):
        z = torch.cat([z0, z1])
        z = F.normalize(z if z.dtype == torch.float64 else z.float(), dim=1)
        logits = z @ z.T / temperature
        logits.fill_diagonal_(float("-inf"))
    return logits, (torch.arange(2 * n, device=z.device) + n) % (2 * n)


def nt_xent(
    z0: Float[Tensor, "n d"], z1: Float[Tensor, "n d"], temperature: float = 0.5
) -> Float[Tensor, ""]:
    """NT-Xent (SimCLR, arXiv 2002.05709, Algorithm 1): the mean over all `2n` projections of the
    cross-entropy of picking its twin among the other `2n − 1`.

    The paper's mean; the value of the authors' code is twice as large. All rows equal give
    log(2n − 1). Works in float32 (float64 for float64 input), finite at any positive temperature.
    """
    logits, positives = contrastive_logits(z0, z1, temperature)
    return F.cross_entropy(logits, positives)


def contrastive_accuracy(
    logits: Float[Tensor, "m m"], positives: Int64[Tensor, " m"]
) -> Float[Tensor, ""]:
    """The fraction of anchors whose most similar candidate is their positive. Chance is
    1 / (2n − 1); ties count as wrong, so that a collapsed model scores 0 and not 1."""
    positive = logits.gather(1, positives[:, None])
    better = (logits >= positive).sum(1)
    return (better == 1).float().mean()
