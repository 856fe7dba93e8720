"""What is measured of the attention weights of each block, on one batch."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from headwise.fusion.affinity import (
    LEAST_MASS,
    Classes,
    auroc,
    between_images,
    classes_in_view,
    classes_of,
    masses,
    ranks,
    relabelled,
    spectral_nmi,
    visible_rows,
)
from headwise.heads import Head
from headwise.heads.layers import Layout, batch_layout

# Inverse temperatures of the control by `h`, over the standard deviation of its cosines: at the
# first, attention is as good as even, at the last as good as all on the nearest.
_SHARPNESS = 2 ** torch.arange(-3, 8.01, 0.25, dtype=torch.float64)


class BlockMeasures(NamedTuple):
    """Of one block on one batch, by attention head (`a` of them), and of the layer: the mean over
    attention heads of their weights. Float64 on the CPU; `p` permutations of the images' labels.
    docs/fusion.md defines each."""

    gain: Float[Tensor, " a"]
    same_mass: Float[Tensor, " a"]
    other_mass: Float[Tensor, " a"]
    twin_mass: Float[Tensor, " a"]
    self_mass: Float[Tensor, " a"]
    entropy: Float[Tensor, " a"]
    effective_number: Float[Tensor, " a"]
    auroc: Float[Tensor, " a"]
    gain_h: Float[Tensor, " a"]
    layer_gain: float
    layer_auroc: float
    layer_nmi: float
    layer_gain_h: float
    gain_permuted: Float[Tensor, "a p"]
    layer_gain_permuted: Float[Tensor, " p"]
    layer_auroc_permuted: Float[Tensor, " p"]
    layer_nmi_permuted: Float[Tensor, " p"]


class HMeasures(NamedTuple):
    """Of the cosines of `h` in the place of attention; NaN where no image sees another."""

    auroc_h: float
    layer_nmi_h: float


class RowMeasures(NamedTuple):
    """Of the weights from row to row, by attention head: means over rows, float64 on the CPU."""

    twin_mass: Float[Tensor, " a"]
    self_mass: Float[Tensor, " a"]
    entropy: Float[Tensor, " a"]
    effective_number: Float[Tensor, " a"]


class Curve(NamedTuple):
    """Attention by the cosines of `h`, softmax(β cos) over the rows in view, as β grows from 0."""

    entropy: Float[Tensor, " g"]
    gain: Float[Tensor, " g"]


@torch.no_grad()
def measure_attention(
    head: Head,
    h: Float[Tensor, "m p"],
    labels: Int[Tensor, " n"],
    views: int = 2,
    *,
    permutations: int,
    seed: int,
) -> Iterator[BlockMeasures]:
    """The measures of one block after the other, with the weights of one held at a time. None for a
    head that has no attention.

    `labels` are those of the n images, `h` the rows of all their first views, then of all twins.
    The head is taken as it is: call its `eval()` first. `seed` draws the permutations: give every
    batch its own.
    """
    images = len(labels)
    layout = batch_layout(head.context, len(h), views, h.device)
    classes = classes_in_view(layout, len(h), relabelled(labels.to(h.device), permutations, seed))
    curve: Curve | None = None
    for weights in head.attention(h, views):
        if curve is None:
            curve = cosine_curve(h, layout, classes)
        rows = row_measures(weights, images)
        affinity = between_images(weights, images)
        del weights  # or they would be there beside those of the next block
        yield _block_measures(rows, affinity, classes, curve, seed)


@torch.no_grad()
def h_affinity(
    h: Float[Tensor, "m p"],
    context: str,
    views: int,
    labels: Int[Tensor, " n"],
    *,
    seed: int,
) -> HMeasures:
    """AUROC and NMI of the cosines of `h` between images, mean over the pairs of views that see
    each other. Negative cosines are no edges of the graph."""
    layout = batch_layout(context, len(h), views, h.device)
    classes = classes_in_view(layout, len(h), relabelled(labels.to(h.device), 0, seed))
    cosines = _cosines(h, layout).masked_fill(~visible_rows(layout, len(h), h.device), 0)
    affinity = between_images(cosines, len(labels))
    found = auroc(ranks(affinity, classes.visible), classes)
    return HMeasures(found.item(), spectral_nmi(affinity[0], classes.labels, seed).item())


def row_measures(weights: Float[Tensor, "s a t t"], images: int) -> RowMeasures:
    """Of weights of any context over rows that are views of so many images."""
    count, length = weights.shape[0] * weights.shape[2], weights.shape[2]

    def mass(offset: int) -> Tensor:
        """What rows take from the row so far on, mean over rows."""
        return weights.diagonal(offset, 2, 3).sum((0, 2), dtype=torch.float64) / count

    # An image's other views, where a sequence holds them, lie a multiple of `images` apart.
    apart = range(images, length, images)
    twin = [mass(offset) for step in apart for offset in (step, -step)]
    # One attention head after the other: w log w is as large as w.
    entropy = torch.stack(
        [torch.special.entr(weights[:, head]).sum(-1) for head in range(weights.shape[1])]
    ).flatten(1)
    found = (sum(twin, torch.zeros_like(mass(0))), mass(0), entropy, entropy.exp())
    return RowMeasures(*(x.double().reshape(len(entropy), -1).mean(1).cpu() for x in found))


def cosine_curve(h: Float[Tensor, "m p"], layout: Layout, classes: Classes) -> Curve:
    """Entropy (mean over rows, in nat) and fusion gain of attention by the cosines of `h`, over a
    grid of β that ends where almost nothing is left for other images."""
    images = classes.labels.shape[1]
    seen = visible_rows(layout, len(h), h.device)
    cosines = _cosines(h, layout)
    apart = seen & ~torch.eye(seen.shape[-1], dtype=torch.bool, device=h.device)
    spread = cosines[apart].std(correction=0).item() if apart.any() else 1.0
    affinity, entropy = [], []
    for beta in [0.0, *(_SHARPNESS / max(spread, 1e-6)).tolist()]:
        weights = (beta * cosines).masked_fill_(~seen, -torch.inf).softmax(-1)
        affinity.append(between_images(weights, images))
        entropy.append(torch.special.entr(weights).sum(-1).mean(dtype=torch.float64))
    found = masses(torch.cat(affinity), classes_of(classes.labels[:1], classes.visible))
    kept = found.other >= LEAST_MASS
    kept[0] = True
    return Curve(torch.stack(entropy)[kept].cpu(), found.gain[kept, 0].cpu())


def matched_gain(curve: Curve, entropy: Float[Tensor, " a"]) -> Float[Tensor, " a"]:
    """The gain of attention by `h` at these entropies; beyond the curve that of its nearest end.

    Linear between points in the root of what entropy lacks to its most, which near β = 0 grows like
    β, as the gain does.
    """
    most = curve.entropy[0]
    lacks, wanted = ((most - x).clamp(min=0).sqrt().numpy() for x in (curve.entropy, entropy))
    order = np.argsort(lacks, kind="stable")
    return torch.from_numpy(np.interp(wanted, lacks[order], curve.gain.numpy()[order]))


def _block_measures(
    rows: RowMeasures,
    affinity: Float[Tensor, "a n n"],
    classes: Classes,
    curve: Curve,
    seed: int,
) -> BlockMeasures:
    layer = affinity.mean(0, keepdim=True)
    # The last is the layer.
    found = masses(torch.cat([affinity, layer]), classes)
    other, same, gain = (x.cpu() for x in found)
    truth = classes_of(classes.labels[:1], classes.visible)
    by_head = auroc(ranks(affinity, classes.visible), truth)
    of_layer = auroc(ranks(layer, classes.visible), classes)[0].cpu()
    nmi = spectral_nmi(layer[0], classes.labels, seed)
    return BlockMeasures(
        gain=gain[:-1, 0],
        same_mass=same[:-1, 0],
        other_mass=other[:-1],
        twin_mass=rows.twin_mass,
        self_mass=rows.self_mass,
        entropy=rows.entropy,
        effective_number=rows.effective_number,
        auroc=by_head[:, 0].cpu(),
        gain_h=matched_gain(curve, rows.entropy),
        layer_gain=gain[-1, 0].item(),
        layer_auroc=of_layer[0].item(),
        layer_nmi=nmi[0].item(),
        layer_gain_h=matched_gain(curve, rows.entropy.mean(0, keepdim=True)).item(),
        gain_permuted=gain[:-1, 1:],
        layer_gain_permuted=gain[-1, 1:],
        layer_auroc_permuted=of_layer[1:],
        layer_nmi_permuted=nmi[1:],
    )


def _cosines(h: Float[Tensor, "m p"], layout: Layout) -> Float[Tensor, "s 1 t t"]:
    exact = torch.promote_types(h.dtype, torch.float32)
    unit = F.normalize(h.to(exact), dim=1).unflatten(0, (layout.sequences, -1))[:, None]
    return unit @ unit.mT
