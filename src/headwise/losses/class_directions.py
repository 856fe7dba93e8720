"""Orthonormal Anchor Regression (arXiv 2403.18699): pulls labelled projections towards a fixed
direction for their class. This breaks the symmetry that keeps collapsed projections collapsed."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from headwise import rng
from headwise.errors import UserError


def orthonormal_directions(classes: int, d: int, seed: int) -> Float[Tensor, "classes d"]:
    """One unit vector for each class, all orthogonal: a uniformly random set that depends only on
    the arguments. float32, on the CPU. Raises `UserError` if there are more classes than `d`."""
    if classes > d:
        raise UserError(
            f"class directions must be orthogonal; got {classes} classes in {d} dimensions; "
            f"use projections of {classes} dimensions or more"
        )
    draws = torch.randn(d, classes, generator=rng.generator(seed, "anchors"), dtype=torch.float64)
    basis, triangle = torch.linalg.qr(draws)
    # QR is unique once the diagonal is positive; without this, libraries differ in signs.
    return (basis * triangle.diagonal().sign()).T.float().contiguous()


def direction_regression(
    z: Float[Tensor, "n d"], labels: Int64[Tensor, " n"], directions: Float[Tensor, "classes d"]
) -> Float[Tensor, ""]:
    """Minus the mean cosine between each labelled projection and the direction of its class: −1
    at best. Labels of −1 are unknown and take no part; where no row is labelled the loss is 0, with
    gradient 0. In float32 (float64 for float64) whatever the autocast. Raises `UserError` for other
    numbers of labels or dimensions."""
    if len(labels) != len(z) or z.shape[1:] != directions.shape[1:]:
        raise UserError(
            "class directions need a label for every row of z, and as many dimensions as z; "
            f"got z {list(z.shape)}, labels {list(labels.shape)}, "
            f"directions {list(directions.shape)}"
        )
    exact = torch.promote_types(z.dtype, torch.float32)
    labelled = labels >= 0
    targets = directions.to(exact)[labels.clamp(min=0)]
    cosines = (F.normalize(z.to(exact), dim=1) * targets).sum(1)
    # No indexing by the mask: its size would have to come from the GPU first.
    return -cosines.where(labelled, 0).sum() / labelled.sum().clamp(min=1)
