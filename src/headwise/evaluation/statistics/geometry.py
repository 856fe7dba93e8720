"""The geometry of representations and projections; all but `class_separation` without labels.

All are metrics: no gradient, float32 at least whatever the input or autocast, finite on collapsed
input.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from headwise.errors import UserError

# Rows whose similarities to all rows are held at once.
_BLOCK_ROWS = 1024


@torch.no_grad()
def alignment(z0: Float[Tensor, "n d"], z1: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Mean squared distance of L2-normalised twins: 0 (twins agree) to 4 (twins are opposite).

    Wang & Isola, arXiv 2005.10242, with their α = 2.
    """
    return twin_distances(z0, z1).mean()


@torch.no_grad()
def twin_distances(z0: Float[Tensor, "n d"], z1: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """What `alignment` is the mean of."""
    return (_unit(z0) - _unit(z1)).square().sum(1)


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


@torch.no_grad()
def feature_std(x: Float[Tensor, "n p"]) -> Float[Tensor, ""]:
    """√p times the mean over features of their standard deviation, of L2-normalised rows: 0 when
    collapsed, at most 1, and near it only when the rows spread evenly in all directions.

    SimSiam, arXiv 2011.10566, figure 2 (which plots it without √p).
    """
    return _unit(x).std(0, correction=0).mean() * x.shape[1] ** 0.5


@torch.no_grad()
def class_separation(x: Float[Tensor, "n p"], labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """The share of the variance that lies between class means, tr S_between / tr S_total in
    float64: 0 (all classes have one mean) to 1 (each class is a point); (classes − 1)/(n − 1) is
    expected where labels mean nothing. r/(1 + r), if r = tr S_between / tr S_within.
    """
    classes, y = labels.unique(return_inverse=True)
    x = x.double()
    x = x - x.mean(0)
    sums = x.new_zeros(len(classes), x.shape[1]).index_add_(0, y, x)
    between = (sums.square().sum(1) / y.bincount()).sum()
    return between / x.square().sum().clamp(min=torch.finfo(x.dtype).tiny)


@torch.no_grad()
def linear_cka(x: Float[Tensor, "n p"], y: Float[Tensor, "n q"]) -> Float[Tensor, ""]:
    """Linear centred kernel alignment of two features of the same images, in float64: 1 where they
    agree up to rotation, scale and shift; 0 where either is constant.

    Kornblith et al., arXiv 1905.00414, in the form over features: ‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖), of
    Frobenius norms, so that memory does not grow with n². Unrelated features reach more than 0,
    the more the fewer rows there are for p and q.
    """
    x, y = (t.double() - t.double().mean(0) for t in (x, y))
    norms = (x.T @ x).norm() * (y.T @ y).norm()
    return (x.T @ y).square().sum() / norms.clamp(min=torch.finfo(x.dtype).tiny)


@torch.no_grad()
def renyi_mutual_information(x: Float[Tensor, "n p"], y: Float[Tensor, "n q"]) -> Float[Tensor, ""]:
    """Matrix-based Rényi mutual information of order 2 of two features of the same images, in nat:
    H(K₁) + H(K₂) − H(K₁∘K₂), where H(K) = −log tr((K/n)²) and K holds the cosine similarities of
    the centred features: K_ij = x̃_i·x̃_j / (‖x̃_i‖ ‖x̃_j‖) with x̃_i = x_i − mean of x.

    Ouyang et al., arXiv 2503.00507, who do not centre: a mean that all rows share, as after a ReLU,
    makes K nearly constant, and the information nearly 0. 0 where either is constant, at most the
    smaller of the two entropies. With a, b the squared entries of K₁ and K₂ it is
    log(1 + cov(a, b) / (mean a · mean b)) over all pairs of rows, so I(x; y) may exceed I(x; x). A
    row's similarity to itself is 1, so unrelated features of few rows reach more than 0. Goes over
    all pairs of rows, block by block: give it a few thousand.
    """
    x, y, n = _unit(_centred(x)), _unit(_centred(y)), len(x)
    sums = torch.zeros(3, dtype=torch.float64, device=x.device)
    with torch.autocast(x.device.type, enabled=False):
        for rows, others in zip(x.split(_BLOCK_ROWS), y.split(_BLOCK_ROWS), strict=True):
            first, second = (rows @ x.T).square(), (others @ y.T).square()
            parts = (first, second, first * second)
            sums += torch.stack([part.sum(dtype=torch.float64) for part in parts])
    one, two, both = -(sums / n**2).clamp(min=torch.finfo(sums.dtype).tiny).log()
    return torch.where(sums[:2].min() > 0, one + two - both, 0.0)


def _centred(x: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
    """Less its mean, in which rows that are all but equal become 0, not their rounding errors."""
    centred = x.double() - x.double().mean(0)
    return torch.where(centred.norm() > 1e-6 * x.double().norm(), centred, 0.0).to(_full(x).dtype)


def _unit(z: Tensor) -> Tensor:
    return F.normalize(_full(z), dim=1)


def _full(x: Tensor) -> Tensor:
    """Float64 stays; anything smaller becomes float32."""
    return x if x.dtype == torch.float64 else x.float()
