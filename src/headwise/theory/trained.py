"""Trained heads against the theory: what its quantities are in each block, and what it predicts.

The theory's layer has values, queries and keys that are its tokens, and no feed-forward part. A
trained block has none of that, so that each estimate comes with how well it fits.
"""

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from headwise.errors import UserError
from headwise.fusion.affinity import (
    Classes,
    between_images,
    classes_in_view,
    masses,
    relabelled,
)
from headwise.heads import Head
from headwise.heads.blocks import Block
from headwise.heads.layers import Layout, batch_layout
from headwise.theory.map import (
    Batch,
    Cosines,
    Layer,
    Weights,
    attention_weights,
    fusion_gain,
    mixed,
)
from headwise.theory.simulation import mean_cosines


class BlockTheory(NamedTuple):
    """One block on one batch, as the theory sees it."""

    tap: str
    """Right after the block."""
    batch: Batch
    betas: tuple[float, ...]
    """β by attention head: the slope of log attention on the cosine of the rows that enter
    attention, within rows."""
    beta_fit: tuple[float, ...]
    """R² of that regression: 1 where attention depends on the cosine alone."""
    layer: Layer
    """β: mean over attention heads; residual r and alignment as estimated."""
    before: Cosines
    """Of the rows that enter attention."""
    predicted: Cosines
    """After the block, by the map from `before`, `betas` and `layer`."""
    from_weights: Cosines
    """The same from the measured attention by relation: free of errors of the law of attention."""
    measured: Cosines
    """Of the rows after the block, behind the same norm."""
    predicted_gain: float
    measured_gain: float
    """Fusion gain of the mean over attention heads (docs/fusion.md)."""
    predicted_mass: float
    measured_mass: float
    """Attention to other images of the own class."""


class Regression(NamedTuple):
    slope: float
    fit: float
    """R²."""


@torch.no_grad()
def trained_theory(
    head: Head, h: Float[Tensor, "m p"], labels: Int64[Tensor, " n"], views: int = 2
) -> list[BlockTheory]:
    """Every block of a head in evaluation mode on one batch: all first views, then their twins.

    Raises `UserError` for a head without softmax attention over samples that all see each other
    (contexts joint and per-view).
    """
    check_head(head, "the head")
    layout = batch_layout(head.context, len(h), views, h.device)
    classes = classes_in_view(layout, len(h), relabelled(labels, 0, 0))
    found = []
    for name, layer in zip(head.tap_names, head.layers, strict=True):
        if isinstance(layer, Block):
            one, h = _block_theory(name, layer, h, labels, layout, classes)
            found.append(one)
        else:
            h = layer(h)
    return found


def check_head(head: Head, name: str) -> None:
    """Raise `UserError` for a head that the theory is not of."""
    blocks = [layer for layer in head.layers if isinstance(layer, Block)]
    if not blocks or head.context not in ("joint", "per-view"):
        raise UserError(
            f"{name} must be a Transformer of context joint or per-view, which the theory is of; "
            f"got {len(blocks)} blocks with softmax attention, context {head.context!r}; "
            "choose another run"
        )


def log_attention_on_cosine(
    weights: Float[Tensor, "s t t"], rows: Float[Tensor, "s t w"]
) -> Regression:
    """β of one attention head: the least-squares slope of log w_ij on cos(x_i, x_j), each row with
    an intercept of its own (the softmax's)."""
    unit = F.normalize(rows.double(), dim=-1)
    cosines, logs = unit @ unit.mT, weights.double().log()
    seen = logs.isfinite()
    count = seen.sum(-1, keepdim=True).clamp(min=1)

    def centred(values: Tensor) -> Tensor:
        values = values.masked_fill(~seen, 0)
        return (values - values.sum(-1, keepdim=True) / count).masked_fill(~seen, 0)

    x, y = centred(cosines), centred(logs)
    xx, xy, yy = (x * x).sum().item(), (x * y).sum().item(), (y * y).sum().item()
    if xx == 0 or yy == 0:  # all cosines equal, or all weights
        return Regression(0.0, 0.0)
    return Regression(xy / xx, xy**2 / (xx * yy))


def predicted_weights(cosines: Cosines, betas: Sequence[float], batch: Batch) -> Weights:
    """The mean over attention heads of the theory's weights."""
    each = [attention_weights(cosines, beta, batch) for beta in betas]

    return Weights(
        tuple(map(statistics.fmean, zip(*(one.each for one in each), strict=True))),
        each[0].counts,
        noise_tilt=statistics.fmean(one.noise_tilt for one in each),
        class_tilt=statistics.fmean(one.class_tilt for one in each),
    )


def mean_block(blocks: Sequence[BlockTheory]) -> BlockTheory:
    """One block's numbers, mean over batches."""

    def mean(values: Iterable[float]) -> float:
        return statistics.fmean(values)

    def each(rows: Iterable[Sequence[float]]) -> tuple[float, ...]:
        return tuple(mean(column) for column in zip(*rows, strict=True))

    def cosines(found: Sequence[Cosines]) -> Cosines:
        twins = [one.twin for one in found if one.twin is not None]
        a, b = (mean(one.within for one in found), mean(one.between for one in found))
        return Cosines(a, b, mean(twins) if twins else None)

    return BlockTheory(
        tap=blocks[0].tap,
        batch=Batch(
            classes=mean(one.batch.classes for one in blocks),
            per_class=mean(one.batch.per_class for one in blocks),
            width=mean(one.batch.width for one in blocks),
        ),
        betas=each(one.betas for one in blocks),
        beta_fit=each(one.beta_fit for one in blocks),
        layer=dataclasses.replace(
            blocks[0].layer,
            beta=mean(one.layer.beta for one in blocks),
            residual=mean(one.layer.residual for one in blocks),
            alignment=mean(one.layer.alignment for one in blocks),
        ),
        before=cosines([one.before for one in blocks]),
        predicted=cosines([one.predicted for one in blocks]),
        from_weights=cosines([one.from_weights for one in blocks]),
        measured=cosines([one.measured for one in blocks]),
        predicted_gain=mean(one.predicted_gain for one in blocks),
        measured_gain=mean(one.measured_gain for one in blocks),
        predicted_mass=mean(one.predicted_mass for one in blocks),
        measured_mass=mean(one.measured_mass for one in blocks),
    )


def _block_theory(
    tap: str,
    block: Block,
    x: Tensor,
    labels: Int64[Tensor, " n"],
    layout: Layout,
    classes: Classes,
) -> tuple[BlockTheory, Float[Tensor, "m w"]]:
    """Also the block's output."""
    entering = block.norm_attention(x) if block.pre_norm else x
    weights = block.attention(x, layout)
    branch, after = _branch(block, x, layout)
    rows = entering.unflatten(0, (layout.sequences, -1))
    leaving = block.norm_attention(after) if block.pre_norm else after
    before = _mean_cosines(entering, labels, layout)
    fits = [log_attention_on_cosine(weights[:, i], rows) for i in range(block.num_heads)]
    betas = tuple(fit.slope for fit in fits)
    mean = weights.mean(1)
    residual, alignment = _residual(block, x, rows, mean, branch)
    layer = Layer(
        beta=sum(betas) / len(betas),
        residual=residual,
        alignment=alignment,
        centred=isinstance(block.norm_attention, nn.BatchNorm1d),
    )
    batch = _batch(entering, labels, layout)
    by_theory = predicted_weights(before, betas, batch)
    by_measure = by_theory._replace(each=_by_relation(mean, labels, by_theory))
    one = BlockTheory(
        tap=tap,
        batch=batch,
        betas=betas,
        beta_fit=tuple(fit.fit for fit in fits),
        layer=layer,
        before=before,
        predicted=mixed(before, by_theory, layer, batch),
        from_weights=mixed(before, by_measure, layer, batch),
        measured=_mean_cosines(leaving, labels, layout),
        predicted_gain=fusion_gain(by_theory),
        measured_gain=masses(between_images(mean[:, None], len(labels)), classes).gain.item(),
        predicted_mass=by_theory.masses[-2],
        measured_mass=by_measure.masses[-2],
    )
    return one, after


def _branch(block: Block, x: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """What attention adds to the rows, and the block's output."""
    caught: list[Tensor] = []
    watch = block.merge.register_forward_hook(lambda _module, _given, out: caught.append(out))
    try:
        after = block(x, layout)
    finally:
        watch.remove()
    return caught[0], after


def _residual(
    block: Block,
    x: Float[Tensor, "m w"],
    rows: Float[Tensor, "s t w"],
    mean: Float[Tensor, "s t t"],
    branch: Float[Tensor, "m w"],
) -> tuple[float, float]:
    """r: the length of the residual branch over that of a value. A value's length is what makes the
    weighted mean of unit rows as long as the branch is. And how far the two are aligned."""
    mixture = (mean.to(rows.dtype) @ F.normalize(rows, dim=-1)).flatten(0, 1).double()
    added, kept = branch.double(), block.residual * x.double()
    value = added.norm() / mixture.norm()
    alignment = (added * mixture).sum() / (added.norm() * mixture.norm())
    if not value > 0:
        raise UserError("the theory needs attention that adds something; got only zeros")
    length = kept.square().sum(1).mean().sqrt()
    return (length / value).item(), alignment.item()


def _mean_cosines(x: Tensor, labels: Int64[Tensor, " n"], layout: Layout) -> Cosines:
    """Mean over the sequences."""
    parts = x.chunk(layout.sequences)
    found = [mean_cosines(part, labels, len(part) // len(labels)) for part in parts]
    within = statistics.fmean(one.within for one in found)
    between = statistics.fmean(one.between for one in found)
    return Cosines(within, between, found[0].twin)


def _batch(x: Tensor, labels: Int64[Tensor, " n"], layout: Layout) -> Batch:
    """Sizes; the width is the effective one, (Σλ)²/Σλ² of the covariance within classes."""
    length = len(x) // layout.sequences
    y = labels.unique(return_inverse=True)[1]
    sizes = y.bincount().double()
    per_class = (sizes.square().sum() / sizes.sum()).item() * length / len(labels)
    unit = F.normalize(x.double(), dim=1)
    y = y.repeat(len(x) // len(labels))
    sums = unit.new_zeros(len(sizes), x.shape[1]).index_add_(0, y, unit)
    noise = unit - (sums / y.bincount()[:, None])[y]
    covariance = noise.T @ noise
    width = (covariance.trace() ** 2 / covariance.square().sum()).item()
    return Batch(classes=length / per_class, per_class=per_class, width=max(width, 2.0))


def _by_relation(
    mean: Float[Tensor, "s t t"], labels: Int64[Tensor, " n"], like: Weights
) -> tuple[float, ...]:
    """Measured weights to a single token of each relation: masses over the relation's counts."""
    length = mean.shape[-1]
    y = labels.repeat(length // len(labels))
    weights = mean.double().mean(0)
    own = weights.trace().item() / length
    same = weights[y[:, None] == y].sum().item() / length - own
    twin = []
    if len(like.counts) == 4:
        apart = (weights.diagonal(offset).sum() for offset in (len(labels), -len(labels)))
        twin = [sum(one.item() for one in apart) / length]
    found = (own, *twin, same - sum(twin), 1 - own - same)
    return tuple(m / c if c > 0 else 0.0 for m, c in zip(found, like.counts, strict=True))
