"""Attention between the images of a batch: what it gives to their own class, and how well it tells
classes apart.

All is of matrices `[k n n]` of k attention heads (or layers, or similarities) over n images, each
with its labels first and then the same labels permuted: p labellings, `[p n]`, measured alike.
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
"""Where images give each other less than this on average, there is nothing to weigh."""

# Pairs of images under all labellings that are compared at once.
_BLOCK_ELEMENTS = 1 << 22
# Sums that are equal but for the order of their float32 terms count as equal, relative to their
# size.
_ROUNDING = 1e-6


class Classes(NamedTuple):
    """What a batch holds, whoever attends: its labels, and who could be attended to."""

    labels: Int64[Tensor, "p n"]
    """From 0 on; the true ones first."""
    visible: Bool[Tensor, "n n"]
    """Whether any view of the one image sees any view of the other; False on the diagonal."""
    classmates: Float[Tensor, "p n"]
    """How many visible images have an image's label."""


class Masses(NamedTuple):
    """What images take from other images. Float64."""

    other: Float[Tensor, " k"]
    """From all other images, mean over images."""
    same: Float[Tensor, "k p"]
    """From those of their own class, mean over images."""
    gain: Float[Tensor, "k p"]
    """Same-class mass over what it would be if each image spread the same mass evenly over the
    images that it sees. 1 where `other` is below `LEAST_MASS`; NaN where none has a classmate."""


def visible_rows(
    layout: Layout, rows: int, device: torch.device | str = "cpu"
) -> Bool[Tensor, "s 1 t t"]:
    """Which rows of its sequence a row sees, in the shape of attention weights."""
    length = rows // layout.sequences
    mask = torch.ones((), dtype=torch.bool, device=device) if layout.mask is None else layout.mask
    return mask.expand(layout.sequences, 1, length, length)


def between_images(weights: Float[Tensor, "s k t t"], images: int) -> Float[Tensor, "k n n"]:
    """Weights from row to row, of any context, as weights from image to image: the sum over the
    views of the one that is seen, mean over the views of the one that looks. Self and twin fall on
    the diagonal, which is left at 0."""
    sequences, heads, length, _ = weights.shape
    views = sequences * length // images
    if length < images:  # each view of the images is cut into several sequences
        parts = weights.unflatten(0, (views, -1)).sum(0)
        found = weights.new_zeros(heads, len(parts), length, len(parts), length)
        found.diagonal(0, 1, 3).copy_(parts.permute(1, 2, 3, 0))
        found = found.reshape(heads, images, images)
    else:
        found = weights.new_zeros(heads, images, images)
        for sequence in weights:
            for looking in sequence.split(images, 1):
                for seen in looking.split(images, 2):
                    found += seen
    found.diagonal(0, 1, 2).zero_()
    return found.div_(views)


def relabelled(labels: Int[Tensor, " n"], permutations: int, seed: int) -> Int64[Tensor, "p n"]:
    """The labels, counted from 0, and so many permutations of them over the images."""
    y = labels.unique(return_inverse=True)[1]
    generator = rng.generator(seed, "fusion", "relabelled")
    orders = [torch.randperm(len(y), generator=generator) for _ in range(permutations)]
    return torch.stack([y, *(y[order.to(y.device)] for order in orders)])


def classes_of(labels: Int64[Tensor, "p n"], visible: Bool[Tensor, "n n"]) -> Classes:
    return Classes(labels, visible, of_classmates(visible[None].float(), labels)[0])


def classes_in_view(layout: Layout, rows: int, labels: Int64[Tensor, "p n"]) -> Classes:
    """The classes of a batch of so many rows, and who could attend to whom in this layout."""
    seen = visible_rows(layout, rows, labels.device).float()
    return classes_of(labels, between_images(seen, labels.shape[1])[0] > 0)


def of_classmates(
    values: Float[Tensor, "k n n"], labels: Int64[Tensor, "p n"]
) -> Float[Tensor, "k p n"]:
    """Under each labelling the sum of each row over the columns of its own class."""
    k, n, _ = values.shape
    found = values.new_empty(n, len(labels), k)
    block = min(n, max(1, _BLOCK_ELEMENTS // labels.numel()))
    # Numbers like the values, and compared into numbers: seven times as fast as by way of bool.
    classes = labels.to(values.dtype)
    same = values.new_empty(block, *labels.shape)  # rows × labellings × columns
    for top in range(0, n, block):
        rows = slice(top, min(n, top + block))
        equal = torch.eq(classes.T[rows, :, None], classes, out=same[: rows.stop - top])
        found[rows] = equal @ values[:, rows].permute(1, 2, 0)
    return found.permute(2, 1, 0)


def masses(affinity: Float[Tensor, "k n n"], classes: Classes) -> Masses:
    """How much attention stays among classmates, under each labelling."""
    other = affinity.sum(-1, dtype=torch.float64)
    same = of_classmates(affinity, classes.labels).mean(-1, dtype=torch.float64)
    chance = classes.classmates.double() / classes.visible.sum(-1).clamp(min=1)
    gain = same / (other @ chance.T / other.shape[1])
    other = other.mean(1)
    return Masses(other, same, torch.where((other < LEAST_MASS)[:, None], 1.0, gain))


def ranks(affinity: Float[Tensor, "k n n"], visible: Bool[Tensor, "n n"]) -> Float[Tensor, "k n n"]:
    """Of each row's visible entries, 1 for the least; equal ones share the mean of theirs. 0 where
    not visible."""
    n = len(visible)
    hidden = (~visible).sum(-1, keepdim=True)
    place = torch.arange(1, n + 1, dtype=torch.int32, device=visible.device)
    found = torch.zeros_like(affinity)

    def rank(part: slice) -> None:
        one, out = affinity[part][0], found[part][0]
        one = one.masked_fill(~visible, -torch.inf)
        # NumPy sorts with vector instructions where there are any: four times as fast.
        order = torch.from_numpy(one.cpu().numpy().argsort(-1)).to(one.device)
        values = one.gather(-1, order)
        starts = torch.ones_like(values, dtype=torch.bool)
        starts[:, 1:] = values[:, 1:] != values[:, :-1]
        first = torch.where(starts, place, 0).cummax(-1).values
        # Where one run of equal values starts, the one before has ended.
        last = torch.where(starts.roll(-1, -1), place, n + 1).flip(-1).cummin(-1).values.flip(-1)
        out.scatter_(-1, order, ((first + last) / 2 - hidden).to(out.dtype))
        out.masked_fill_(~visible, 0)

    on_threads(rank, [slice(i, i + 1) for i in range(len(affinity))])
    return found


def auroc(ranks: Float[Tensor, "k n n"], classes: Classes) -> Float[Tensor, "k p"]:
    """The chance that an image of the own class ranks above a visible one of another class, ties
    half; mean over the images that see both, NaN where none does. Float64. (Mann and Whitney's U
    of the ranks.)"""
    same = classes.classmates.double()
    others = classes.visible.sum(-1) - same
    above = of_classmates(ranks, classes.labels).double() - same * (same + 1) / 2
    each = above / (same * others)
    return torch.where((same > 0) & (others > 0), each, torch.nan).nanmean(-1)


def spectral_clusters(
    affinity: Float[Tensor, "n n"], clusters: int, seed: int
) -> Int[np.ndarray, " n"] | None:
    """The cluster of each image in the graph of what both give each other, (A + Aᵀ)/2, without
    negative edges. None for a graph without edges.
    """
    graph = affinity.double().clamp(min=0).cpu().numpy()
    graph = (graph + graph.T) / 2
    np.fill_diagonal(graph, 0)
    if not graph.any():
        return None
    return k_means(graph_axes(graph, clusters), clusters, seed, ("fusion", "clusters"))


def spectral_nmi(
    affinity: Float[Tensor, "n n"], labels: Int64[Tensor, "p n"], seed: int
) -> Float[Tensor, " p"]:
    """NMI of spectral clusters, as many as classes, with each labelling: the clusters stay, the
    labels are permuted. NaN without edges or with one class."""
    count = int(labels.max()) + 1
    found = spectral_clusters(affinity, count, seed) if count > 1 else None
    if found is None:
        return torch.full((len(labels),), torch.nan, dtype=torch.float64)
    tables = (contingency(found, y, (count, count)) for y in labels.cpu().numpy())
    return torch.tensor([nmi(table) for table in tables], dtype=torch.float64)


def p_value(observed: Float[Tensor, "*b"], permuted: Float[Tensor, "*b p"]) -> Float[Tensor, "*b"]:
    """How often permuted labels reach the observed value, itself counted among them; NaN where it
    is NaN."""
    reached = permuted >= (observed - _ROUNDING * observed.abs())[..., None]
    p = (1 + reached.sum(-1, dtype=observed.dtype)) / (1 + permuted.shape[-1])
    return torch.where(observed.isnan(), torch.nan, p)
