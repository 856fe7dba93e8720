"""What can be seen of a representation or a projection without labels.

All are metrics: no gradient, float32 at least whatever the input or autocast, finite on collapsed
input. None multiplies matrices in reduced precision, so autocast has nothing to change.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from headwise.errors import UserError


@torch.no_grad()
def alignment(z0: Float[Tensor, "n d"], z1: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Mean squared distance of L2-normalised twins: 0 (twins agree) to 4 (twins are opposite).

    Wang & Isola, arXiv 2005.10242, with their α = 2.
    """
    return (_unit(z0) - _unit(z1)).square().sum(1).mean()


@torch.no_grad()
def uniformity(z: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """log mean exp(−2‖x − y‖²) over the distinct pairs of L2-normalised rows: 0 when collapsed,
    about −4 when spread evenly over a sphere of many dimensions, and never below −8.

    Wang & Isola, arXiv 2005.10242, with their t = 2. Keeps n(n−1)/2 distances: give it a batch or
    a few thousand rows. Raises `UserError` for fewer than two rows.
    """
    if len(z) < 2:
        raise UserError(f"uniformity needs at least 2 rows; got {len(z)}; use a larger batch")
    return torch.pdist(_unit(z)).square().mul(-2).exp().mean().log()


@torch.no_grad()
def effective_rank(x: Float[Tensor, "n p"]) -> Float[Tensor, ""]:
    """exp of the entropy of the singular values over their sum: 1 (collapsed) to min(n, p).

    RankMe, arXiv 2210.02885: of `x` as it is, neither centred nor normalised. The paper's ε = 1e-7
    guards log 0; here 0·log 0 = 0. The zero matrix has rank 1 by this definition.
    """
    values = torch.linalg.svdvals(_full(x))
    shares = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
    return torch.special.entr(shares).sum().exp()


@torch.no_grad()
def singular_values(x: Float[Tensor, "n p"]) -> Float[Tensor, " p"]:
    """Singular values of the covariance of `x`, largest first: collapse shows as a drop.

    DirectCLR, arXiv 2110.09348, figure 2 (which plots their logarithm): centred, divided by n, and
    not L2-normalised. Beyond the rank that n rows can have they are exactly 0.
    """
    x = _full(x)
    values = torch.linalg.svdvals(x - x.mean(0)).square() / len(x)
    return F.pad(values, (0, x.shape[1] - len(values)))


def _unit(z: Tensor) -> Tensor:
    return F.normalize(_full(z), dim=1)


def _full(x: Tensor) -> Tensor:
    """Float64 stays; anything smaller becomes float32."""
    return x if x.dtype == torch.float64 else x.float()
