"""The logits of the contrastive task as a whole matrix, and what is read from it."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor


def normalised(z0: Float[Tensor, "n d"], z1: Float[Tensor, "n d"]) -> Float[Tensor, "m d"]:
    """The `m = 2n` projections of the two views at length one, in float32 (float64 for float64):
    in half precision the norm's guard against zero is itself zero."""
    z = torch.cat([z0, z1])
    return F.normalize(z if z.dtype == torch.float64 else z.float(), dim=1)


def contrastive_logits(
    z0: Float[Tensor, "n d"], z1: Float[Tensor, "n d"], temperature: float
) -> tuple[Float[Tensor, "m m"], Int64[Tensor, " m"]]:
    """The logits of the contrastive task and, for each anchor, the column of its positive.

    Rows are anchors, columns candidates, both the `m = 2n` projections of the two views; an entry
    is the cosine similarity over the temperature. A projection is never its own candidate (−∞).
    """
    n = len(z0)
    with torch.autocast(z0.device.type, enabled=False):
        z = normalised(z0, z1)
        logits = z @ z.T / temperature
        logits.fill_diagonal_(float("-inf"))
    return logits, (torch.arange(2 * n, device=z.device) + n) % (2 * n)


def contrastive_accuracy(
    logits: Float[Tensor, "m m"], positives: Int64[Tensor, " m"]
) -> Float[Tensor, ""]:
    """The fraction of anchors whose most similar candidate is their positive. Chance is
    1 / (2n − 1); ties count as wrong, so that a collapsed model scores 0 and not 1."""
    positive = logits.gather(1, positives[:, None])
    better = (logits >= positive).sum(1)
    return (better == 1).float().mean()
