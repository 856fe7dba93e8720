"""The measures of each block's attention weights on one batch."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headwise.fusion.affinity import (
    Classes,
    auroc,
    between_images,
    count_classmates,
    masses,
    ranks,
    relabelled,
    spectral_nmi,
    visible_classes,
    visible_rows,
)
from headwise.fusion.similarity import as_sharp, row_cosines, similarity
from headwise.heads import Head
from headwise.heads.layers import batch_layout


class BlockMeasures(NamedTuple):
    """The measures of one block on one batch: for each of `a` attention heads, and for the layer,
    which is the mean of the attention heads' weights. With `p` permutations of the images' labels,
    in float64 on the CPU. docs/fusion.md defines each."""

    gain: Float[Tensor, " a"]
    same_mass: Float[Tensor, " a"]
    other_mass: Float[Tensor, " a"]
    twin_mass: Float[Tensor, " a"]
    self_mass: Float[Tensor, " a"]
    entropy: Float[Tensor, " a"]
    effective_number: Float[Tensor, " a"]
    auroc: Float[Tensor, " a"]
    gain_h: Float[Tensor, " a"]
    gain_input: Float[Tensor, " a"]
    layer_gain: float
    layer_auroc: float
    layer_nmi: float
    layer_gain_h: float
    layer_gain_input: float
    gain_permuted: Float[Tensor, "a p"]
    layer_gain_permuted: Float[Tensor, " p"]
    layer_auroc_permuted: Float[Tensor, " p"]
    layer_nmi_permuted: Float[Tensor, " p"]


class HMeasures(NamedTuple):
    """Measures of the cosines of `h` instead of attention. NaN if no image sees another one."""

    auroc_h: float
    layer_nmi_h: float


class RowMeasures(NamedTuple):
    """Measures of the weights from row to row, by attention head: means over rows, in float64 on
    the CPU."""

    twin_mass: Float[Tensor, " a"]
    self_mass: Float[Tensor, " a"]
    entropy: Float[Tensor, " a"]
    effective_number: Float[Tensor, " a"]


@torch.no_grad()
def measure_attention(
    head: Head,
    h: Float[Tensor, "m p"],
    labels: Int[Tensor, " n"],
    views: int = 2,
    *,
    permutations: int,
    seed: int,
    controls: bool = True,
) -> Iterator[BlockMeasures]:
    """Yield the measures of one block after the other, so that only one block's weights are in
    memory. A head without attention yields nothing.

    `labels` are those of the n images, and `h` has the rows of all first views, then of all twins.
    Call the head's `eval()` before. `seed` draws the permutations; give every batch its own.
    Without `controls` by similarity, their gains are NaN.
    """
    images = len(labels)
    layout = batch_layout(head.context, len(h), views, h.device)
    classes = visible_classes(layout, len(h), relabelled(labels.to(h.device), permutations, seed))
    inputs = block_inputs(head, h, views)
    of_h = similarity(h, layout, images) if inputs and controls else None
    for weights, rows in zip(head.attention(h, views), inputs, strict=True):
        affinities = [between_images(weights, images)]
        if of_h is not None:
            of_input = of_h if rows is h else similarity(rows, layout, images)
            affinities += [as_sharp(similar, weights, images) for similar in (of_h, of_input)]
        by_row = row_measures(weights, images)
        del weights  # frees their memory before the next block computes its own
        yield _block_measures(by_row, affinities, classes, seed)


@torch.no_grad()
def layer_gains(
    head: Head, h: Float[Tensor, "m p"], labels: Int[Tensor, " n"], views: int = 2
) -> Float[Tensor, " l"]:
    """Return the fusion gain of each block alone, as `measure_attention` has it."""
    layout = batch_layout(head.context, len(h), views, h.device)
    classes = visible_classes(layout, len(h), relabelled(labels.to(h.device), 0, 0))
    layers = (
        between_images(w, len(labels)).mean(0, keepdim=True) for w in head.attention(h, views)
    )
    return torch.cat([masses(layer, classes).gain[:, 0].cpu() for layer in layers])


@torch.no_grad()
def h_affinity(
    h: Float[Tensor, "m p"],
    context: str,
    views: int,
    labels: Int[Tensor, " n"],
    *,
    seed: int,
) -> HMeasures:
    """Return AUROC and NMI of the cosines of `h` between images, as the mean over pairs of views
    that see each other. Negative cosines are not edges of the graph."""
    layout = batch_layout(context, len(h), views, h.device)
    classes = visible_classes(layout, len(h), relabelled(labels.to(h.device), 0, seed))
    cosines = row_cosines(h, layout).masked_fill(~visible_rows(layout, len(h), h.device), 0)
    affinity = between_images(cosines, len(labels))
    auroc_h = auroc(ranks(affinity, classes.visible), classes).item()
    return HMeasures(auroc_h, spectral_nmi(affinity[0], classes.labels, seed).item())


def row_measures(weights: Float[Tensor, "s a t t"], images: int) -> RowMeasures:
    """Return the measures of weights of any context over the views of this number of images."""
    count, length = weights.shape[0] * weights.shape[2], weights.shape[2]

    def mass(offset: int) -> Tensor:
        """Return the weight that rows give to the row at this offset, as the mean over rows."""
        return weights.diagonal(offset, 2, 3).sum((0, 2), dtype=torch.float64) / count

    # If a sequence holds an image's other views, they are a multiple of `images` rows away.
    distances = range(images, length, images)
    twin = [mass(offset) for distance in distances for offset in (distance, -distance)]
    # One attention head after the other, because w log w takes as much memory as w.
    entropy = torch.stack(
        [torch.special.entr(weights[:, i]).sum(-1) for i in range(weights.shape[1])]
    ).flatten(1)
    by_row = (sum(twin, torch.zeros_like(mass(0))), mass(0), entropy, entropy.exp())
    return RowMeasures(*(x.double().reshape(len(entropy), -1).mean(1).cpu() for x in by_row))


def block_inputs(head: Head, h: Float[Tensor, "m p"], views: int) -> list[Float[Tensor, "m _"]]:
    """Return the rows that each block with attention takes in, in the order of `attention`."""
    rows = {"h": h, **head.taps(h, views)}
    before = dict(itertools.pairwise(rows))
    taken = {after: rows[tap] for tap, after in before.items()}
    return [taken[tap] for tap in head.block_taps]


def _block_measures(
    rows: RowMeasures, affinities: list[Float[Tensor, "a n n"]], classes: Classes, seed: int
) -> BlockMeasures:
    """`affinities` are the attention, and if asked for the controls by `h` and by input rows."""
    affinity = affinities[0]
    layer = affinity.mean(0, keepdim=True)
    # The last row is the layer's.
    other, same, gain = (x.cpu() for x in masses(torch.cat([affinity, layer]), classes))
    truth = count_classmates(classes.labels[:1], classes.visible)
    gain_h, gain_input = [
        masses(torch.cat([control, control.mean(0, keepdim=True)]), truth).gain[:, 0].cpu()
        for control in affinities[1:]
    ] or [torch.full((len(gain),), torch.nan, dtype=gain.dtype)] * 2
    head_auroc = auroc(ranks(affinity, classes.visible), truth)
    layer_auroc = auroc(ranks(layer, classes.visible), classes)[0].cpu()
    nmi = spectral_nmi(layer[0], classes.labels, seed)
    return BlockMeasures(
        gain=gain[:-1, 0],
        same_mass=same[:-1, 0],
        other_mass=other[:-1],
        twin_mass=rows.twin_mass,
        self_mass=rows.self_mass,
        entropy=rows.entropy,
        effective_number=rows.effective_number,
        auroc=head_auroc[:, 0].cpu(),
        gain_h=gain_h[:-1],
        gain_input=gain_input[:-1],
        layer_gain=gain[-1, 0].item(),
        layer_auroc=layer_auroc[0].item(),
        layer_nmi=nmi[0].item(),
        layer_gain_h=gain_h[-1].item(),
        layer_gain_input=gain_input[-1].item(),
        gain_permuted=gain[:-1, 1:],
        layer_gain_permuted=gain[-1, 1:],
        layer_auroc_permuted=layer_auroc[1:],
        layer_nmi_permuted=nmi[1:],
    )
