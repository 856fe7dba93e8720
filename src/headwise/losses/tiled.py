"""NT-Xent in tiles of a few anchors against all candidates: exact, memory linear in n."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# Anchors a tile. Fewer are slower (the matrix products grow thin), more are no faster.
_ROWS = 512


def tiled_nt_xent(
    z: Float[Tensor, "m d"], temperature: float, gradient: bool
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, "m d"] | None]:
    """Loss, contrastive accuracy and, if asked for, the loss's gradient, of normalised projections
    of at least two images.

    The loss of an anchor is −log σ(p − l), with p the logit of its positive and l the
    log-sum-exp of its negatives; so its gradient is q = σ(l − p) times the negatives' softmax, and
    −q for the positive: no small difference of large numbers even where the task is solved. A row
    of the tile is complete, so the tile gives its part of the gradient at once, to anchors and
    candidates alike, and is never needed again.
    """
    m = len(z)
    loss, right = z.new_zeros(()), z.new_zeros((), dtype=torch.float32)
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
        hardest = tile.amax(1)
        total = tile.sub_(hardest[:, None]).exp_().sum(1)
        margin = positive - hardest - total.log()
        loss -= F.logsigmoid(margin).sum()
        right += (positive > hardest).sum()
        if slope is not None:
            tile[rows, twins] = -total
            weights = (torch.sigmoid(-margin) / total)[:, None]
            slope[first : first + _ROWS].addcmul_(weights, tile @ z)
            slope.addmm_(tile.T, weights * own)
    return loss / m, right / m, None if slope is None else slope.div_(m * temperature)
