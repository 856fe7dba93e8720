"""The theory's quantities in each block of a trained head, and its predictions.

In the theory's layer, values, queries and keys are the tokens, and there is no feed-forward part.
A trained block is different, so estimates come with a measure of their fit.
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
    between_images,
    masses,
    relabelled,
    visible_classes,
)
from headwise.heads import Head
from headwise.heads.blocks import Block
from headwise.heads.layers import Layout, batch_layout
from headwise.theory.map import (
    BatchShape,
    Cosines,
    Layer,
    Weights,
    attention_weights,
    fusion_gain,
    mixed,
)
from headwise.theory.simulation import mean_cosines


class BlockTheory(NamedTuple):
    """One block on one batch in the terms of the theory."""

    tap: str
    """The tap after the block."""
    batch: BatchShape
    betas: tuple[float, ...]
    """β by attention head: the slope of log attention over the cosine of the rows that enter
    attention, within rows."""
    beta_fit: tuple[float, ...]
    """R² of that regression. 1 if attention depends only on the cosine."""
    layer: Layer
    """The mean β over attention heads, and the estimates of residual r and alignment."""
    before: Cosines
    """The cosines of the rows that enter attention."""
    predicted: Cosines
    """The cosines after the block that the map predicts from `before`, `betas` and `layer`."""
    from_weights: Cosines
    """The same from the measured attention by relation, without errors of predicted attention."""
    measured: Cosines
    """The cosines of the rows after the block, behind the same norm."""
    predicted_gain: float
    measured_gain: float
    """The fusion gain of the mean over attention heads (docs/fusion.md)."""
    predicted_mass: float
    measured_mass: float
    """The attention to other images of the own class."""


class Regression(NamedTuple):
    """A least-squares line."""

    slope: float
    fit: float
    """R²."""


@torch.no_grad()
def trained_theory(
    head: Head, h: Float[Tensor, "m p"], labels: Int64[Tensor, " n"], views: int = 2
) -> list[BlockTheory]:
    """Return the theory of every block of a head in evaluation mode on one batch, which has all
    first views, then their twins. Raises `UserError` for a head without softmax attention over
    samples that all see each other (contexts joint and per-view)."""
    check_head(head, "the head")
    layout = batch_layout(head.context, len(h), views, h.device)
    blocks = []
    for name, layer in zip(head.tap_names, head.layers, strict=True):
        if isinstance(layer, Block):
            block, h = _block_theory(name, layer, h, labels, layout)
            blocks.append(block)
        else:
            h = layer(h)
    return blocks


def check_head(head: Head, name: str) -> None:
    """Raise `UserError` for a head that the theory does not describe."""
    blocks = [layer for layer in head.layers if isinstance(layer, Block)]
    if not blocks or head.context not in ("joint", "per-view"):
        raise UserError(
            f"{name} must be a Transformer of context joint or per-view; the theory describes no "
            f"other heads; got {len(blocks)} blocks with softmax attention, context "
            f"{head.context!r}; choose another run"
        )


def log_attention_on_cosine(
    weights: Float[Tensor, "s t t"], rows: Float[Tensor, "s t w"]
) -> Regression:
    """Return β of one attention head: the least-squares slope of log w_ij over cos(x_i, x_j). Each
    row has its own intercept, which the softmax determines."""
    unit = F.normalize(rows.double(), dim=-1)
    cosines, logs = unit @ unit.mT, weights.double().log()
    visible = logs.isfinite()
    count = visible.sum(-1, keepdim=True).clamp(min=1)

    def centred(values: Tensor) -> Tensor:
        values = values.masked_fill(~visible, 0)
        return (values - values.sum(-1, keepdim=True) / count).masked_fill(~visible, 0)

    x, y = centred(cosines), centred(logs)
    xx, xy, yy = (x * x).sum().item(), (x * y).sum().item(), (y * y).sum().item()
    if xx == 0 or yy == 0:  # all cosines are equal, or all weights
        return Regression(0.0, 0.0)
    return Regression(xy / xx, xy**2 / (xx * yy))


def predicted_weights(cosines: Cosines, betas: Sequence[float], batch: BatchShape) -> Weights:
    """Return the mean over attention heads of the theory's weights."""
    weights = [attention_weights(cosines, beta, batch) for beta in betas]
    return weights[0]._replace(
        single=_mean_columns(w.single for w in weights),
        noise_tilt=statistics.fmean(w.noise_tilt for w in weights),
        class_tilt=statistics.fmean(w.class_tilt for w in weights),
    )


def mean_block(blocks: Sequence[BlockTheory]) -> BlockTheory:
    """Return the numbers of one block as means over batches."""
    mean = statistics.fmean
    return BlockTheory(
        tap=blocks[0].tap,
        batch=BatchShape(
            classes=mean(block.batch.classes for block in blocks),
            per_class=mean(block.batch.per_class for block in blocks),
            width=mean(block.batch.width for block in blocks),
        ),
        betas=_mean_columns(block.betas for block in blocks),
        beta_fit=_mean_columns(block.beta_fit for block in blocks),
        layer=dataclasses.replace(
            blocks[0].layer,
            beta=mean(block.layer.beta for block in blocks),
            residual=mean(block.layer.residual for block in blocks),
            alignment=mean(block.layer.alignment for block in blocks),
        ),
        before=_mean_of_cosines([block.before for block in blocks]),
        predicted=_mean_of_cosines([block.predicted for block in blocks]),
        from_weights=_mean_of_cosines([block.from_weights for block in blocks]),
        measured=_mean_of_cosines([block.measured for block in blocks]),
        predicted_gain=mean(block.predicted_gain for block in blocks),
        measured_gain=mean(block.measured_gain for block in blocks),
        predicted_mass=mean(block.predicted_mass for block in blocks),
        measured_mass=mean(block.measured_mass for block in blocks),
    )


def _mean_columns(rows: Iterable[Sequence[float]]) -> tuple[float, ...]:
    return tuple(map(statistics.fmean, zip(*rows, strict=True)))


def _mean_of_cosines(cosines: Sequence[Cosines]) -> Cosines:
    twins = [c.twin for c in cosines if c.twin is not None]
    within, between = _mean_columns(c[:2] for c in cosines)
    return Cosines(within, between, statistics.fmean(twins) if twins else None)


def _block_theory(
    tap: str, block: Block, x: Tensor, labels: Int64[Tensor, " n"], layout: Layout
) -> tuple[BlockTheory, Float[Tensor, "m w"]]:
    """Return the theory of a block on the rows `x`, and the block's output."""
    entering = block.norm_attention(x) if block.pre_norm else x
    weights = block.attention(x, layout)
    branch, after = _attention_branch(block, x, layout)
    rows = entering.unflatten(0, (layout.sequences, -1))
    leaving = block.norm_attention(after) if block.pre_norm else after
    before = _sequence_cosines(entering, labels, layout)
    fits = [log_attention_on_cosine(weights[:, i], rows) for i in range(block.num_heads)]
    betas = tuple(fit.slope for fit in fits)
    mean = weights.mean(1)
    residual, alignment = _residual(block, x, rows, mean, branch)
    centred = isinstance(block.norm_attention, nn.BatchNorm1d)
    layer = Layer(
        beta=sum(betas) / len(betas), residual=residual, alignment=alignment, centred=centred
    )
    batch = _batch_shape(entering, labels, layout)
    predicted = predicted_weights(before, betas, batch)
    measured = predicted._replace(single=_by_relation(mean, labels, predicted))
    classes = visible_classes(layout, len(x), relabelled(labels, 0, 0))
    theory = BlockTheory(
        tap=tap,
        batch=batch,
        betas=betas,
        beta_fit=tuple(fit.fit for fit in fits),
        layer=layer,
        before=before,
        predicted=mixed(before, predicted, layer, batch),
        from_weights=mixed(before, measured, layer, batch),
        measured=_sequence_cosines(leaving, labels, layout),
        predicted_gain=fusion_gain(predicted),
        measured_gain=masses(between_images(mean[:, None], len(labels)), classes).gain.item(),
        predicted_mass=predicted.masses[-2],
        measured_mass=measured.masses[-2],
    )
    return theory, after


def _attention_branch(block: Block, x: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """Return what attention adds to the rows, and the block's output."""
    branch: list[Tensor] = []
    hook = block.merge.register_forward_hook(lambda _module, _input, out: branch.append(out))
    try:
        after = block(x, layout)
    finally:
        hook.remove()
    return branch[0], after


def _residual(
    block: Block,
    x: Float[Tensor, "m w"],
    rows: Float[Tensor, "s t w"],
    mean: Float[Tensor, "s t t"],
    branch: Float[Tensor, "m w"],
) -> tuple[float, float]:
    """Return r, the length of the residual branch over that of a value, and the alignment of the
    attention branch with the weighted mean of unit rows. The length of a value is the factor that
    makes this mean as long as the attention branch."""
    mixture = (mean.to(rows.dtype) @ F.normalize(rows, dim=-1)).flatten(0, 1).double()
    added, residual = branch.double(), block.residual * x.double()
    value = added.norm() / mixture.norm()
    alignment = (added * mixture).sum() / (added.norm() * mixture.norm())
    if not value > 0:
        raise UserError("the theory needs attention with an output that is not zero; got zeros")
    length = residual.square().sum(1).mean().sqrt()
    return (length / value).item(), alignment.item()


def _sequence_cosines(x: Tensor, labels: Int64[Tensor, " n"], layout: Layout) -> Cosines:
    """Return the mean over the sequences of their mean cosines."""
    parts = x.chunk(layout.sequences)
    cosines = [mean_cosines(part, labels, len(part) // len(labels)) for part in parts]
    return _mean_of_cosines(cosines)


def _batch_shape(x: Tensor, labels: Int64[Tensor, " n"], layout: Layout) -> BatchShape:
    """Return the shape of a batch. The width is (Σλ)²/Σλ² of the covariance within classes."""
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
    return BatchShape(classes=length / per_class, per_class=per_class, width=max(width, 2.0))


def _by_relation(
    mean: Float[Tensor, "s t t"], labels: Int64[Tensor, " n"], like: Weights
) -> tuple[float, ...]:
    """Return the measured weights of a single token of each relation: masses over counts."""
    length = mean.shape[-1]
    y = labels.repeat(length // len(labels))
    weights = mean.double().mean(0)
    own = weights.trace().item() / length
    same = weights[y[:, None] == y].sum().item() / length - own
    twin = []
    if len(like.counts) == 4:
        offsets = (len(labels), -len(labels))
        twin = [sum(weights.diagonal(offset).sum().item() for offset in offsets) / length]
    totals = (own, *twin, same - sum(twin), 1 - own - same)
    return tuple(m / c if c > 0 else 0.0 for m, c in zip(totals, like.counts, strict=True))
