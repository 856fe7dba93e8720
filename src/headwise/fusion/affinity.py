"""Attention between the images of a batch: how much of it stays in the own class, and how well it
separates classes.

The inputs are matrices `[k n n]` of k attention heads (or layers, or similarities) over n images,
and p labellings `[p n]`: first the labels, then permutations of them.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from headwise import rng
from headwise.evaluation.protocols.cluster import contingency, graph_axes, k_means, nmi
from headwise.heads.layers import Layout
from headwise.runtime.hardware import on_threads

LEAST_MASS = 1e-6
"""If images attend to other images with less than this on average, their attention has no gain."""

# Number of pairs of images, over all labellings, that are compared at once.
_BLOCK_ELEMENTS = 1 << 22
# Rounds of proportional fitting. Only the diagonal is hidden, so that few are needed.
_FITS = 20
_LEAST = 1e-30
# Relative to their size, sums that differ only in the order of float32 terms differ by less.
_ROUNDING = 1e-6


class Classes(NamedTuple):
    """The labels of a batch, and which images can attend to each other."""

    labels: Int64[Tensor, "p n"]
    """Labels from 0 to the number of classes. The true labels come first."""
    visible: Bool[Tensor, "n n"]
    """Whether any view of one image sees any view of the other. False on the diagonal."""
    classmates: Float[Tensor, "p n"]
    """The number of visible images with the image's label."""


class Masses(NamedTuple):
    """The attention of images to other images, in float64."""

    other: Float[Tensor, " k"]
    """Attention to all other images, mean over images."""
    same: Float[Tensor, "k p"]
    """Attention to other images of the own class, mean over images."""
    gain: Float[Tensor, "k p"]
    """`same` over its value if who attends and who is attended to were independent (`independent`).
    1 if `other` is below `LEAST_MASS`; NaN if no image has a classmate."""


def visible_rows(
    layout: Layout, rows: int, device: torch.device | str = "cpu"
) -> Bool[Tensor, "s 1 t t"]:
    """Return which rows of its sequence a row sees, in the shape of attention weights."""
    length = rows // layout.sequences
    mask = torch.ones((), dtype=torch.bool, device=device) if layout.mask is None else layout.mask
    return mask.expand(layout.sequences, 1, length, length)


def between_images(weights: Float[Tensor, "s k t t"], images: int) -> Float[Tensor, "k n n"]:
    """Turn weights from row to row, of any context, into weights from image to image: the sum over
    the views of the attended image, and the mean over the views of the attending image. Self and
    twin are on the diagonal, which is 0."""
    sequences, attention_heads, length, _ = weights.shape
    views = sequences * length // images
    if length < images:  # each view of the images consists of several sequences
        parts = weights.unflatten(0, (views, -1)).sum(0)
        total = weights.new_zeros(attention_heads, len(parts), length, len(parts), length)
        total.diagonal(0, 1, 3).copy_(parts.permute(1, 2, 3, 0))
        total = total.reshape(attention_heads, images, images)
    else:
        total = weights.new_zeros(attention_heads, images, images)
        for sequence in weights:
            for attending in sequence.split(images, 1):
                for attended in attending.split(images, 2):
                    total += attended
    total.diagonal(0, 1, 2).zero_()
    return total.div_(views)


def relabelled(labels: Int[Tensor, " n"], permutations: int, seed: int) -> Int64[Tensor, "p n"]:
    """Return the labels, counted from 0, and then random permutations of them over the images."""
    y = labels.unique(return_inverse=True)[1]
    generator = rng.generator(seed, "fusion", "relabelled")
    orders = [torch.randperm(len(y), generator=generator) for _ in range(permutations)]
    return torch.stack([y, *(y[order.to(y.device)] for order in orders)])


def count_classmates(labels: Int64[Tensor, "p n"], visible: Bool[Tensor, "n n"]) -> Classes:
    return Classes(labels, visible, sum_over_classmates(visible[None].float(), labels)[0])


def visible_classes(layout: Layout, rows: int, labels: Int64[Tensor, "p n"]) -> Classes:
    """Return the classes of a batch with this number of rows and this layout."""
    visible = visible_rows(layout, rows, labels.device).float()
    return count_classmates(labels, between_images(visible, labels.shape[1])[0] > 0)


def sum_over_classmates(
    values: Float[Tensor, "k n n"], labels: Int64[Tensor, "p n"]
) -> Float[Tensor, "k p n"]:
    """Return the sum of each row over the columns of its own class, for each labelling."""
    k, n, _ = values.shape
    sums = values.new_empty(n, len(labels), k)
    block = min(n, max(1, _BLOCK_ELEMENTS // labels.numel()))
    # Labels as floats, compared into floats, are seven times as fast as a comparison into bool.
    classes = labels.to(values.dtype)
    same = values.new_empty(block, *labels.shape)  # rows × labellings × columns
    for top in range(0, n, block):
        rows = slice(top, min(n, top + block))
        equal = torch.eq(classes.T[rows, :, None], classes, out=same[: rows.stop - top])
        sums[rows] = equal @ values[:, rows].permute(1, 2, 0)
    return sums.permute(2, 1, 0)


def masses(affinity: Float[Tensor, "k n n"], classes: Classes) -> Masses:
    """Return how much attention stays in the own class, for each labelling."""
    other = affinity.sum(-1, dtype=torch.float64).mean(1)
    same, chance = (
        sum_over_classmates(values, classes.labels).mean(-1, dtype=torch.float64)
        for values in (affinity, independent(affinity, classes.visible))
    )
    gain = same / chance
    return Masses(other, same, torch.where((other < LEAST_MASS)[:, None], 1.0, gain))


def independent(
    affinity: Float[Tensor, "k n n"], visible: Bool[Tensor, "n n"]
) -> Float[Tensor, "k n n"]:
    """Return the attention between images that depends on the two only by a factor each, one of the
    attending and one of the attended image, and has the sums of this attention over rows and over
    columns (iterative proportional fitting).

    It is what an image gets that is attended to by all images alike. With classes of unequal size
    such images alone would make more of the attention stay in a class than an even spread does."""
    rows, columns = (affinity.sum(axis, dtype=torch.float64) for axis in (-1, -2))
    seen = visible.double()
    attended = columns
    attending = rows / (attended @ seen.T).clamp(min=_LEAST)
    for _ in range(_FITS):
        attended = columns / (attending @ seen).clamp(min=_LEAST)
        attending = rows / (attended @ seen.T).clamp(min=_LEAST)
    return (attending[:, :, None] * attended[:, None] * seen).to(affinity.dtype)


def ranks(affinity: Float[Tensor, "k n n"], visible: Bool[Tensor, "n n"]) -> Float[Tensor, "k n n"]:
    """Return the ranks of each row's visible entries, 1 for the smallest. Equal entries get the
    mean of their ranks. Other entries get 0."""
    n = len(visible)
    hidden = (~visible).sum(-1, keepdim=True)
    position = torch.arange(1, n + 1, dtype=torch.int32, device=visible.device)
    result = torch.zeros_like(affinity)

    def rank(part: slice) -> None:
        matrix, out = affinity[part][0], result[part][0]
        matrix = matrix.masked_fill(~visible, -torch.inf)
        # NumPy sorts with vector instructions if the CPU has them, which is four times as fast.
        order = torch.from_numpy(matrix.cpu().numpy().argsort(-1)).to(matrix.device)
        values = matrix.gather(-1, order)
        starts = torch.ones_like(values, dtype=torch.bool)
        starts[:, 1:] = values[:, 1:] != values[:, :-1]
        first = torch.where(starts, position, 0).cummax(-1).values
        # A run of equal values ends where the next one starts.
        ends = torch.where(starts.roll(-1, -1), position, n + 1)
        last = ends.flip(-1).cummin(-1).values.flip(-1)
        out.scatter_(-1, order, ((first + last) / 2 - hidden).to(out.dtype))
        out.masked_fill_(~visible, 0)

    on_threads(rank, [slice(i, i + 1) for i in range(len(affinity))])
    return result


def auroc(ranks: Float[Tensor, "k n n"], classes: Classes) -> Float[Tensor, "k p"]:
    """Return the probability that an image of the own class ranks above a visible image of another
    class, where a tie counts half. It is Mann and Whitney's U of the ranks, in float64, as the mean
    over the images that see both kinds; NaN if none does."""
    same = classes.classmates.double()
    others = classes.visible.sum(-1) - same
    above = sum_over_classmates(ranks, classes.labels).double() - same * (same + 1) / 2
    by_image = above / (same * others)
    return torch.where((same > 0) & (others > 0), by_image, torch.nan).nanmean(-1)


def spectral_clusters(
    affinity: Float[Tensor, "n n"], clusters: int, seed: int
) -> Int[np.ndarray, " n"] | None:
    """Return the cluster of each image in the graph (A + Aᵀ)/2 without its negative edges, or None
    if the graph has no edges."""
    graph = affinity.double().clamp(min=0).cpu().numpy()
    graph = (graph + graph.T) / 2
    np.fill_diagonal(graph, 0)
    if not graph.any():
        return None
    return k_means(graph_axes(graph, clusters), clusters, seed, ("fusion", "clusters"))


def spectral_nmi(
    affinity: Float[Tensor, "n n"], labels: Int64[Tensor, "p n"], seed: int
) -> Float[Tensor, " p"]:
    """Return the NMI of each labelling with spectral clusters, as many as there are classes. NaN if
    there are no edges or only one class."""
    count = int(labels.max()) + 1
    clusters = spectral_clusters(affinity, count, seed) if count > 1 else None
    if clusters is None:
        return torch.full((len(labels),), torch.nan, dtype=torch.float64)
    tables = (contingency(clusters, y, (count, count)) for y in labels.cpu().numpy())
    return torch.tensor([nmi(table) for table in tables], dtype=torch.float64)


def p_value(observed: Float[Tensor, "*b"], permuted: Float[Tensor, "*b p"]) -> Float[Tensor, "*b"]:
    """Return how often permuted labels reach the observed value, which counts as one of them. NaN
    if it is NaN."""
    reached = permuted >= (observed - _ROUNDING * observed.abs())[..., None]
    p = (1 + reached.sum(-1, dtype=observed.dtype)) / (1 + permuted.shape[-1])
    return torch.where(observed.isnan(), torch.nan, p)
