"""The measures of each block's attention weights on one batch."""

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
    count_classmates,
    masses,
    ranks,
    relabelled,
    spectral_nmi,
    visible_classes,
    visible_rows,
)
from headwise.heads import Head
from headwise.heads.layers import Layout, batch_layout

# Inverse temperatures of the control by `h`, times the standard deviation of its cosines. At the
# first, attention is almost uniform; at the last, almost all of it is on the nearest row.
_SHARPNESS = 2 ** torch.arange(-3, 8.01, 0.25, dtype=torch.float64)


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
    layer_gain: float
    layer_auroc: float
    layer_nmi: float
    layer_gain_h: float
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


class Curve(NamedTuple):
    """Attention by the cosines of `h`, softmax(β cos) over the visible rows, for β from 0 on."""

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
    """Yield the measures of one block after the other, so that only one block's weights are in
    memory. A head without attention yields nothing.

    `labels` are those of the n images, and `h` has the rows of all first views, then of all twins.
    Call the head's `eval()` before. `seed` draws the permutations; give every batch its own.
    """
    images = len(labels)
    layout = batch_layout(head.context, len(h), views, h.device)
    classes = visible_classes(layout, len(h), relabelled(labels.to(h.device), permutations, seed))
    curve: Curve | None = None
    for weights in head.attention(h, views):
        if curve is None:
            curve = cosine_curve(h, layout, classes)
        rows = row_measures(weights, images)
        affinity = between_images(weights, images)
        del weights  # frees their memory before the next block computes its own
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
    """Return AUROC and NMI of the cosines of `h` between images, as the mean over pairs of views
    that see each other. Negative cosines are not edges of the graph."""
    layout = batch_layout(context, len(h), views, h.device)
    classes = visible_classes(layout, len(h), relabelled(labels.to(h.device), 0, seed))
    cosines = _cosines(h, layout).masked_fill(~visible_rows(layout, len(h), h.device), 0)
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


def cosine_curve(h: Float[Tensor, "m p"], layout: Layout, classes: Classes) -> Curve:
    """Return entropy (mean over rows, in nats) and fusion gain of attention by the cosines of `h`,
    over a grid of β that ends where other images get almost no attention."""
    images = classes.labels.shape[1]
    visible = visible_rows(layout, len(h), h.device)
    cosines = _cosines(h, layout)
    others = visible & ~torch.eye(visible.shape[-1], dtype=torch.bool, device=h.device)
    spread = cosines[others].std(correction=0).item() if others.any() else 1.0
    affinity, entropy = [], []
    for beta in [0.0, *(_SHARPNESS / max(spread, 1e-6)).tolist()]:
        weights = (beta * cosines).masked_fill_(~visible, -torch.inf).softmax(-1)
        affinity.append(between_images(weights, images))
        entropy.append(torch.special.entr(weights).sum(-1).mean(dtype=torch.float64))
    truth = count_classmates(classes.labels[:1], classes.visible)
    other, _, gain = masses(torch.cat(affinity), truth)
    points = other >= LEAST_MASS
    points[0] = True
    return Curve(torch.stack(entropy)[points].cpu(), gain[points, 0].cpu())


def matched_gain(curve: Curve, entropy: Float[Tensor, " a"]) -> Float[Tensor, " a"]:
    """Return the gain of attention by `h` at these entropies. Beyond the curve it is that of the
    nearest end.

    The gain is interpolated linearly over the root of the distance to the maximal entropy. Near
    β = 0 this root is proportional to β, and so is the gain's distance from 1.
    """
    maximum = curve.entropy[0]
    x, target = ((maximum - e).clamp(min=0).sqrt().numpy() for e in (curve.entropy, entropy))
    order = np.argsort(x, kind="stable")
    return torch.from_numpy(np.interp(target, x[order], curve.gain.numpy()[order]))


def _block_measures(
    rows: RowMeasures,
    affinity: Float[Tensor, "a n n"],
    classes: Classes,
    curve: Curve,
    seed: int,
) -> BlockMeasures:
    layer = affinity.mean(0, keepdim=True)
    # The last row is the layer's.
    other, same, gain = (x.cpu() for x in masses(torch.cat([affinity, layer]), classes))
    truth = count_classmates(classes.labels[:1], classes.visible)
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
        gain_h=matched_gain(curve, rows.entropy),
        layer_gain=gain[-1, 0].item(),
        layer_auroc=layer_auroc[0].item(),
        layer_nmi=nmi[0].item(),
        layer_gain_h=matched_gain(curve, rows.entropy.mean(0, keepdim=True)).item(),
        gain_permuted=gain[:-1, 1:],
        layer_gain_permuted=gain[-1, 1:],
        layer_auroc_permuted=layer_auroc[1:],
        layer_nmi_permuted=nmi[1:],
    )


def _cosines(h: Float[Tensor, "m p"], layout: Layout) -> Float[Tensor, "s 1 t t"]:
    exact = torch.promote_types(h.dtype, torch.float32)
    unit = F.normalize(h.to(exact), dim=1).unflatten(0, (layout.sequences, -1))[:, None]
    return unit @ unit.mT
