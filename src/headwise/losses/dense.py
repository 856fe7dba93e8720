"""The logits of the contrastive task as one matrix, and the accuracy computed from it."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from headwise.errors import UserError


def normalised(z0: Float[Tensor, "n d"], z1: Float[Tensor, "n d"]) -> Float[Tensor, "m d"]:
    """Return the `m = 2n` projections of both views at length one, in float32 (float64 for
    float64). In half precision, the constant that protects the norm against zero is itself zero.
    Raises `UserError` for views of different shapes."""
    if z0.ndim != 2 or z0.shape != z1.shape or not len(z0):
        raise UserError(
            "the two views must be tables of one shape, [n d], with a row for every image; "
            f"got {list(z0.shape)} and {list(z1.shape)}"
        )
    z = torch.cat([z0, z1])
    return F.normalize(z if z.dtype == torch.float64 else z.float(), dim=1)


def check_temperature(temperature: float | Tensor) -> None:
    """Raise `UserError` unless it is one positive number."""
    if isinstance(temperature, Tensor) and temperature.ndim:
        shape = tuple(temperature.shape)
        raise UserError(f"the temperature must be one number; got a tensor of shape {shape}")
    if not 0 < temperature < float("inf"):
        raise UserError(f"the temperature must be positive and finite; got {temperature}")


def contrastive_logits(
    z0: Float[Tensor, "n d"], z1: Float[Tensor, "n d"], temperature: float | Float[Tensor, ""]
) -> tuple[Float[Tensor, "m m"], Int64[Tensor, " m"]]:
    """Return the logits of the contrastive task and, for each anchor, the column of its positive.

    Rows are anchors and columns are candidates. Both are the `m = 2n` projections of the two views.
    An entry is the cosine similarity over the temperature. The diagonal is −∞, because a projection
    is never its own candidate. Raises `UserError` for a temperature that is not positive.
    """
    check_temperature(temperature)
    n = len(z0)
    with torch.autocast(z0.device.type, enabled=False):
        z = normalised(z0, z1)
        logits = z @ z.T / temperature
        logits.fill_diagonal_(float("-inf"))
    return logits, (torch.arange(2 * n, device=z.device) + n) % (2 * n)


def contrastive_accuracy(
    logits: Float[Tensor, "m m"], positives: Int64[Tensor, " m"]
) -> Float[Tensor, ""]:
    """Return the fraction of anchors whose most similar candidate is their positive. Chance is
    1 / (2n − 1). Ties count as wrong, so a collapsed model scores 0 and not 1."""
    positive = logits.gather(1, positives[:, None])
    as_similar = (logits >= positive).sum(1)
    return (as_similar == 1).float().mean()
