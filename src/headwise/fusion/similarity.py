"""The control by similarity: attention that looks at nothing but the cosines of some rows, and is
as sharp as an attention that it is compared with, row by row."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from headwise.fusion.affinity import between_images, visible_rows
from headwise.heads.layers import Layout

# Inverse temperatures, times the standard deviation of the cosines. At the first above 0, attention
# is almost uniform; at the last, almost all of it is on the most similar row.
_SHARPNESS = 2 ** torch.arange(-3, 10.01, 0.5, dtype=torch.float64)
# After interpolation β is right to a few percent; each step of Newton squares the error.
_NEWTON_STEPS = 2


class Similarity(NamedTuple):
    """The cosines of rows, and how sharp softmax(β cos) over the rows of other images is."""

    cosines: Float[Tensor, "s t t"]
    """Less their mean, which no softmax sees."""
    hidden: Bool[Tensor, "s t t"]
    """Whether a row does not see another one, or both are views of one image."""
    betas: Float[Tensor, " g"]
    """From 0 on, in float64 like `losses`."""
    losses: Float[Tensor, "s t g"]
    """By how much the row's entropy at each β is below that at β = 0, in nats."""


class Spread(NamedTuple):
    """How a row spreads over the rows of other images; any spread if it sees none."""

    p: Float[Tensor, "s t t"]
    entropy: Float[Tensor, "s t 1"]
    variance: Float[Tensor, "s t 1"]
    """That of the cosines under `p`."""


def similarity(rows: Float[Tensor, "m w"], layout: Layout, images: int) -> Similarity:
    """Return the similarity of rows that hold all images in one view, then in the next."""
    cosines = row_cosines(rows, layout)[:, 0]
    sequences, length, _ = cosines.shape
    image = torch.arange(len(rows), device=rows.device).reshape(sequences, length) % images
    seen = visible_rows(layout, len(rows), rows.device)[:, 0]
    seen = seen & (image[:, :, None] != image[:, None])
    if seen.any():
        cosines = cosines - cosines[seen].mean()
    scale = max(cosines[seen].std(correction=0).item(), 1e-6) if seen.any() else 1.0
    betas = torch.cat([_SHARPNESS.new_zeros(1), _SHARPNESS / scale]).to(rows.device)
    entropies = torch.cat([_spread(cosines, ~seen, beta).entropy for beta in betas], -1)
    # It never falls with β, except by rounding.
    losses = (entropies[..., :1] - entropies).clamp(min=0).cummax(-1).values
    return Similarity(cosines, ~seen, betas, losses)


def as_sharp(
    similar: Similarity, weights: Float[Tensor, "s a t t"], images: int
) -> Float[Tensor, "a n n"]:
    """Return the attention from image to image if each row of each attention head kept its share on
    other images, and the entropy of its spread over them, but spread it by similarity alone."""
    # One attention head after the other, because the control takes as much memory as its weights.
    by_head = (rows_as_sharp(similar, weights[:, i]) for i in range(weights.shape[1]))
    return torch.cat([between_images(control[:, None], images) for control in by_head])


def rows_as_sharp(similar: Similarity, weights: Float[Tensor, "s t t"]) -> Float[Tensor, "s t t"]:
    """Return the same from row to row, for one attention head."""
    cosines, hidden, betas, losses = similar
    kept = weights.to(cosines.dtype).masked_fill(hidden, 0)
    mass = kept.sum(-1, keepdim=True)
    entropy = torch.special.entr(kept / mass.clamp(min=1e-30)).sum(-1, True, dtype=torch.float64)
    even = (~hidden).sum(-1, keepdim=True).clamp(min=1).double().log()
    target = (even - entropy).clamp(min=0)
    # A loss grows as β² near 0, and its root as β.
    right = torch.searchsorted(losses, target).clamp(1, len(betas) - 1)
    low, high = betas[right - 1], betas[right]
    start, end = (losses.gather(-1, at).sqrt() for at in (right - 1, right))
    part = (target.sqrt() - start) / (end - start).clamp(min=1e-12)
    beta = low + part.clamp(0, 1) * (high - low)
    for _ in range(_NEWTON_STEPS):
        spread = _spread(cosines, hidden, beta)
        slope = (beta * spread.variance).clamp(min=1e-12)
        beta = (beta + (spread.entropy - even + target) / slope).clamp(low, high)
    return _spread(cosines, hidden, beta).p.mul_(mass)


def row_cosines(rows: Float[Tensor, "m w"], layout: Layout) -> Float[Tensor, "s 1 t t"]:
    """Return the cosines of the rows within each sequence, in the shape of attention weights."""
    exact = torch.promote_types(rows.dtype, torch.float32)
    unit = F.normalize(rows.to(exact), dim=1).unflatten(0, (layout.sequences, -1))[:, None]
    return unit @ unit.mT


def _spread(cosines: Float[Tensor, "s t t"], hidden: Bool[Tensor, "s t t"], beta: Tensor) -> Spread:
    """Return softmax(β cos), with one β or one for each row."""
    logits = beta.to(cosines.dtype) * cosines
    logits.masked_fill_(hidden, torch.finfo(cosines.dtype).min)
    p = logits.softmax(-1)
    # log Σ exp, from the largest term alone.
    total = logits.amax(-1, keepdim=True) - p.amax(-1, keepdim=True).log()
    weighted = p * cosines
    mean = weighted.sum(-1, keepdim=True).double()
    second = torch.linalg.vecdot(weighted, cosines)[..., None]
    return Spread(p, total.double() - beta * mean, second - mean.square())
