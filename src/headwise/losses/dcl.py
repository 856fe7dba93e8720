"""Decoupled contrastive learning: NT-Xent whose denominator is without the positive."""

from jaxtyping import Float
from torch import Tensor

from headwise.losses.dense import positive_and_negatives


def dcl(
    z0: Float[Tensor, "n d"],
    z1: Float[Tensor, "n d"],
    temperature: float | Float[Tensor, ""] = 0.5,
    *,
    normalised: bool = True,
) -> Float[Tensor, ""]:
    """Return the decoupled contrastive loss (arXiv 2110.06848, equation 6 without weights): minus
    the logit of the positive, plus the log-sum-exp of the logits of the `2n − 2` negatives, as the
    mean over all `2n` projections, in nats.

    Logits are as in `nt_xent`. If all rows are equal, the loss is log(2n − 2). It can be below 0.
    It is computed in float32 (float64 for float64 input). It holds four matrices of [2n 2n] in
    float32 at once: 1,060 MiB at n = 4096. Raises `UserError` as `nt_xent`, and for a single image.
    """
    positive, negatives = positive_and_negatives(z0, z1, temperature, normalised=normalised)
    return (negatives.logsumexp(1, keepdim=True) - positive).mean()
