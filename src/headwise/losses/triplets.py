"""NT-Logistic and the margin triplet loss, with all negatives of an anchor or one semi-hard one.

SimCLR (arXiv 2002.05709, Table 2) writes both for an anchor u, its positive v⁺ and one negative v⁻.
Here the loss is the mean over all triplets: `2n` anchors with `2n − 2` negatives each, those of
NT-Xent. The paper takes the negatives of one view only, "for simplicity".
"""

from typing import Literal, get_args

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from headwise.errors import UserError, nearest
from headwise.losses.dense import positive_and_negatives

Negatives = Literal["all", "semi-hard"]


def nt_logistic(
    z0: Float[Tensor, "n d"],
    z1: Float[Tensor, "n d"],
    temperature: float | Float[Tensor, ""] = 0.5,
    negatives: Negatives = "all",
    *,
    normalised: bool = True,
) -> Float[Tensor, ""]:
    """Return NT-Logistic (SimCLR, Table 2): −log σ(uᵀv⁺/τ) − log σ(−uᵀv⁻/τ), the mean over all
    triplets, in nats. So an anchor's positive weighs as much as all its negatives together.

    `negatives` as in `chosen`; an anchor without a semi-hard negative has the first term alone.
    u and v have length one, unless not `normalised`. If all rows are equal and have length one, the
    loss is log(1 + exp(−1/τ)) + log(1 + exp(1/τ)). It is computed in float32 (float64 for float64
    input). It holds two matrices of [2n 2n] in float32 at once, or four with semi-hard negatives:
    550 and 940 MiB at n = 4096. Raises `UserError` as `nt_xent`, and for a single image.
    """
    positive, others = positive_and_negatives(z0, z1, temperature, normalised=normalised)
    kept, count = chosen(positive, others, negatives)
    pushed = F.softplus(kept, threshold=40).sum(1, keepdim=True) / count
    return (F.softplus(-positive, threshold=40) + pushed).mean()


def margin_triplet(
    z0: Float[Tensor, "n d"],
    z1: Float[Tensor, "n d"],
    margin: float = 0.5,
    negatives: Negatives = "all",
) -> Float[Tensor, ""]:
    """Return the margin triplet loss (SimCLR, Table 2): max(uᵀv⁻ − uᵀv⁺ + m, 0) with u and v of
    length one, the mean over all triplets: a difference of cosines, from 0 to 2 + m.

    `negatives` as in `chosen`; an anchor without a semi-hard negative adds 0 to the mean. If all
    rows are equal, the loss is m. It is computed in float32 (float64 for float64 input). It holds
    three matrices of [2n 2n] in float32 at once, or four with semi-hard negatives: 800 and 940 MiB
    at n = 4096. Raises `UserError` for a margin that is not positive, for views of different shapes
    and for a single image.
    """
    if not 0 < margin < float("inf"):
        raise UserError(f"the margin must be positive and finite; got {margin}")
    positive, others = positive_and_negatives(z0, z1, 1.0)
    kept, count = chosen(positive, others, negatives)
    return F.relu(kept - positive + margin).sum() / (len(positive) * count)


def chosen(
    positive: Float[Tensor, "m 1"], others: Float[Tensor, "m m"], negatives: Negatives
) -> tuple[Float[Tensor, "m k"], int]:
    """Return the logits of the negatives that count, −∞ at columns that do not, and how many an
    anchor has.

    `all`: all `2n − 2`. `semi-hard` (FaceNet, arXiv 1503.03832, and SimCLR, section 5.2): one, the
    most similar of those that are less similar than the positive. The papers also want it within
    the margin. The margin loss of any other is 0; NT-Logistic has no margin, so the choice has no
    such bound. Equally similar ones share the gradient. Without such a negative the logit is −∞.
    If all rows are equal, rounding decides which negatives are less similar.
    """
    match negatives:
        case "all":
            return others, len(others) - 2
        case "semi-hard":
            further = others.masked_fill(others >= positive, float("-inf"))
            return further.amax(1, keepdim=True), 1
    choices = get_args(Negatives)
    raise UserError(f"negatives cannot be {negatives!r}: {nearest(negatives, choices)}")
