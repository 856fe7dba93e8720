"""The logits of the contrastive task as one matrix, and what is computed from them."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from headwise.errors import UserError

# Anchors whose logits `contrastive_entropy` holds at once.
_ROWS = 512


def projections(
    z0: Float[Tensor, "n d"], z1: Float[Tensor, "n d"], *, normalised: bool = True
) -> Float[Tensor, "m d"]:
    """Return the `m = 2n` projections of both views in float32 (float64 for float64), each divided
    by its length if `normalised`. In half precision, the constant that protects the norm against
    zero is itself zero. Raises `UserError` for views of different shapes."""
    if z0.ndim != 2 or z0.shape != z1.shape or not len(z0):
        raise UserError(
            "the two views must be tables of one shape, [n d], with a row for every image; "
            f"got {list(z0.shape)} and {list(z1.shape)}"
        )
    z = torch.cat([z0, z1])
    z = z if z.dtype == torch.float64 else z.float()
    return F.normalize(z, dim=1) if normalised else z


def check_temperature(temperature: float | Tensor) -> None:
    """Raise `UserError` unless it is one positive number."""
    if isinstance(temperature, Tensor) and temperature.ndim:
        shape = tuple(temperature.shape)
        raise UserError(f"the temperature must be one number; got a tensor of shape {shape}")
    if not 0 < temperature < float("inf"):
        raise UserError(f"the temperature must be positive and finite; got {temperature}")


def contrastive_logits(
    z0: Float[Tensor, "n d"],
    z1: Float[Tensor, "n d"],
    temperature: float | Float[Tensor, ""],
    *,
    normalised: bool = True,
    mates: Int64[Tensor, " n"] | None = None,
) -> tuple[Float[Tensor, "m m"], Int64[Tensor, " m"]]:
    """Return the logits of the contrastive task and, for each anchor, the column of its positive.

    Rows are anchors and columns are candidates. Both are the `m = 2n` projections of the two views.
    An entry is the cosine similarity over the temperature, or the dot product over the temperature
    if not `normalised`. The diagonal is −∞, because a projection is never its own candidate. Images
    with equal numbers in `mates` are no candidates of each other: −∞ too. Raises `UserError` for a
    temperature that is not positive.
    """
    check_temperature(temperature)
    n = len(z0)
    with torch.autocast(z0.device.type, enabled=False):
        z = projections(z0, z1, normalised=normalised)
        logits = z @ z.T / temperature
        logits.fill_diagonal_(float("-inf"))
        positives = (torch.arange(2 * n, device=z.device) + n) % (2 * n)
        if mates is not None:
            excluded = both_views(mates, n)[:, None] == both_views(mates, n)
            excluded.scatter_(1, positives[:, None], False)
            logits.masked_fill_(excluded, float("-inf"))
    return logits, positives


def both_views(mates: Int64[Tensor, " n"], n: int) -> Int64[Tensor, " m"]:
    """Return the numbers of the rows of both views. Raises `UserError` for another number of
    images."""
    if mates.shape != (n,):
        raise UserError(
            f"there must be a group for each of the {n} images; got {list(mates.shape)}"
        )
    return mates.repeat(2)


def contrastive_accuracy(
    logits: Float[Tensor, "m m"], positives: Int64[Tensor, " m"]
) -> Float[Tensor, ""]:
    """Return the fraction of anchors whose most similar candidate is their positive. Chance is
    1 / (2n − 1). Ties count as wrong, so a collapsed model scores 0 and not 1."""
    positive = logits.gather(1, positives[:, None])
    as_similar = (logits >= positive).sum(1)
    return (as_similar == 1).float().mean()


@torch.no_grad()
def contrastive_entropy(
    z0: Float[Tensor, "n d"],
    z1: Float[Tensor, "n d"],
    temperature: float,
    *,
    normalised: bool = True,
) -> Float[Tensor, ""]:
    """Return the entropy of an anchor's softmax over its `2n − 1` candidates in nats, the mean over
    anchors: 0 to log(2n − 1).

    SimCLR's Table 5 has it too. There an anchor's candidates are the n projections of the other
    view (google-research/simclr, metrics.py), so the largest value is log n. It holds the logits of
    512 anchors at a time: 16 MiB a matrix at n = 4096.
    """
    check_temperature(temperature)
    with torch.autocast(z0.device.type, enabled=False):
        z = projections(z0, z1, normalised=normalised)
        total = z.new_zeros(())
        for first in range(0, len(z), _ROWS):
            logits = z[first : first + _ROWS] @ z.T / temperature
            logits.diagonal(first).fill_(float("-inf"))
            total += torch.special.entr(logits.softmax(1)).sum()
    return total / len(z)


def positive_and_negatives(
    z0: Float[Tensor, "n d"],
    z1: Float[Tensor, "n d"],
    temperature: float | Float[Tensor, ""],
    *,
    normalised: bool = True,
) -> tuple[Float[Tensor, "m 1"], Float[Tensor, "m m"]]:
    """Return the logit of each anchor's positive, and the logits of its `2n − 2` negatives: a row
    is −∞ at the anchor and at its positive. Raises `UserError` as `contrastive_logits`, and for a
    single image, which has no negatives."""
    logits, columns = contrastive_logits(z0, z1, temperature, normalised=normalised)
    if len(z0) < 2:
        raise UserError("this loss needs at least 2 images, to have negatives; got 1")
    anchors = torch.arange(len(logits), device=logits.device)
    positive = logits[anchors, columns]
    logits[anchors, columns] = float("-inf")
    return positive[:, None], logits


def alike(
    n: int, device: torch.device, labels: Int64[Tensor, " n"] | None = None
) -> Bool[Tensor, "m m"]:
    """Return which rows are positives of each other, for two views of `n` images: twins or, with
    `labels`, all other rows of the class. A label of −1 is unknown: the twin is the only positive.
    Raises `UserError` for another number of labels."""
    group = torch.arange(n, device=device)
    if labels is not None:
        if labels.shape != (n,):
            raise UserError(
                f"there must be a label for each of the {n} images; got {list(labels.shape)}"
            )
        group = labels.where(labels >= 0, -1 - group)
    group = group.repeat(2)
    return (group[:, None] == group).fill_diagonal_(False)
