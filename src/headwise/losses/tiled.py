"""NT-Xent in tiles of some anchors against all candidates: exact, with memory linear in n. Torch's
checkpointing would need as little memory, but compute every tile twice."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

# Anchors per tile. Fewer are slower, because the matrix products become thin. More are not faster.
_ROWS = 512


def tiled_nt_xent(
    z: Float[Tensor, "m d"],
    temperature: float,
    gradient: bool,
    mates: Int64[Tensor, " m"] | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, "m d"] | None]:
    """Return the loss, the contrastive accuracy and, with `gradient`, the gradient of the loss, for
    projections of at least two images. Rows with equal numbers in `mates` are no negatives of each
    other.

    The loss of an anchor is −log σ(p − l), where p is the logit of its positive and l the
    log-sum-exp of its negatives. Its gradient is q = σ(l − p) times the softmax of the negatives,
    and −q for the positive: accurate even when the task is solved, since no large numbers are
    subtracted. A tile holds complete rows, so it gives its part of the gradient at once.
    """
    m = len(z)
    loss, hits = z.new_zeros(()), z.new_zeros((), dtype=torch.float32)
    slope = torch.zeros_like(z) if gradient else None
    buffer = z.new_empty(min(_ROWS, m), m)
    for first in range(0, m, _ROWS):
        anchors = torch.arange(first, min(first + _ROWS, m), device=z.device)
        rows, twins = anchors - first, (anchors + m // 2) % m
        own = z[first : first + _ROWS]
        tile = torch.mm(own / temperature, z.T, out=buffer[: len(own)])
        positive = tile[rows, twins]
        tile[rows, anchors] = -torch.inf
        tile[rows, twins] = -torch.inf
        if mates is not None:
            tile.masked_fill_(mates[anchors, None] == mates, -torch.inf)
        # An anchor without negatives has loss 0; of all others, `total` is at least 1.
        hardest = tile.amax(1).clamp_(min=torch.finfo(z.dtype).min)
        total = tile.sub_(hardest[:, None]).exp_().sum(1).clamp_(min=1)
        margin = positive - hardest - total.log()
        loss -= F.logsigmoid(margin).sum()
        hits += (positive > hardest).sum()
        if slope is not None:
            tile[rows, twins] = -total
            weights = (torch.sigmoid(-margin) / total)[:, None]
            slope[first : first + _ROWS].addcmul_(weights, tile @ z)
            slope.addmm_(tile.T, weights * own)
    return loss / m, hits / m, None if slope is None else slope.div_(m * temperature)
