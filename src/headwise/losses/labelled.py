"""Losses that use labels: SupCon, and the cross-entropy of a classifier."""

import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from headwise.errors import UserError
from headwise.losses.dense import alike, contrastive_logits, projections


def supcon(
    z0: Float[Tensor, "n d"],
    z1: Float[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    temperature: float | Float[Tensor, ""] = 0.5,
    *,
    normalised: bool = True,
) -> Float[Tensor, ""]:
    """Return SupCon (arXiv 2004.11362, equation 2, L_out): NT-Xent with every other row of the
    anchor's class as a positive. An anchor's loss is the mean over its positives, in nats, and the
    loss is the mean over all `2n` projections.

    The paper sums over anchors; its code takes this mean, times τ/0.07, which is left out here. A
    label of −1 is unknown: the only positive of such an image is its twin, and without labels the
    loss is `nt_xent`. Logits are as there. If all rows are equal, the loss is log(2n − 1). It is
    computed in float32 (float64 for float64 input). It holds four matrices of [2n 2n] in float32 at
    once, and one of bytes: 1,130 MiB at n = 4096. Raises `UserError` as `nt_xent`, and for another
    number of labels.
    """
    logits, _ = contrastive_logits(z0, z1, temperature, normalised=normalised)
    positives = alike(len(z0), logits.device, labels)
    similar = logits.where(positives, 0).sum(1) / positives.sum(1)
    return (logits.logsumexp(1) - similar).mean()


def class_cross_entropy(
    z0: Float[Tensor, "n d"], z1: Float[Tensor, "n d"], labels: Int64[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Return the cross-entropy of the classes, with `z` as the logits of `d` classes, in nats: the
    mean over both views of the labelled images. Supervised training in place of contrastive.

    Images with label −1 take no part; where no image has a label, the loss is 0 with gradient 0. If
    all logits are equal, it is log d. It is computed in float32 (float64 for float64 input). Memory
    is linear in `n`. Raises `UserError` for views of different shapes and for another number of
    labels. Labels must be below `d`.
    """
    logits = projections(z0, z1, normalised=False)
    if labels.shape != z0.shape[:1]:
        raise UserError(
            f"there must be a label for each of the {len(z0)} images; got {list(labels.shape)}"
        )
    both = labels.repeat(2)
    summed = F.cross_entropy(logits, both, ignore_index=-1, reduction="sum")
    return summed / (both >= 0).sum().clamp(min=1)
