"""A trained head at other batch sizes and augmentation strengths than it was trained with: what the
map predicts of its fusion, and what is measured. The head is not trained again."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from headwise.data import DataConfig, Given
from headwise.errors import UserError
from headwise.fusion.batches import BatchPlan, draw_batches, labelled_images, plan_batches
from headwise.fusion.config import SMALLEST_BATCH, FusionConfig
from headwise.model.contrastive import ContrastiveModel
from headwise.model.extraction import ExtractConfig
from headwise.model.trained import open_trained
from headwise.runs.directory import Run
from headwise.runtime.hardware import Device
from headwise.theory.map import BatchShape, Cosines, fusion_gain, mixed
from headwise.theory.trained import (
    BlockTheory,
    check_head,
    mean_block,
    predicted_weights,
    trained_theory,
)

STRENGTHS = (0.0, 0.25, 0.5, 1.0)
"""Of colour jitter. (SimCLR on CIFAR: 0.5.)"""

_BATCHES = 4


class StudyPoint(NamedTuple):
    """One block at one setting, mean over batches."""

    setting: float
    """Images a batch, or augmentation strength."""
    tap: str
    predicted_gain: float
    measured_gain: float
    predicted_mass: float
    """Attention to other images of the own class."""
    measured_mass: float
    within: float
    """a of the rows that enter the block, measured."""
    reference: bool
    """The setting at which β, r and what the map misses were estimated."""


class Agreement(NamedTuple):
    """Of predicted and measured changes of log fusion gain."""

    correlation: float
    """NaN where one of them does not change."""
    error: float
    """Mean absolute difference."""
    change: float
    """Mean absolute measured change: the error of who predicts none."""


class Setup(NamedTuple):
    """A finished run's model, and the batches it is asked on."""

    model: ContrastiveModel
    extraction: ExtractConfig
    plan: BatchPlan
    spec: str
    """Where the images come from, as for `--data`."""


def set_up(
    run: str | Path | Run,
    data: DataConfig | str | Path | None = None,
    *,
    images: Given | None = None,
    accept_changed_data: bool = False,
    batches: int = _BATCHES,
    device: Device = "auto",
) -> Setup:
    """The run opened, with its batches. `data` None: that of pretraining. Raises
    `UserError` for an unfinished run, for a head that the theory is not of, and for images that
    cannot serve."""
    trained = open_trained(
        run,
        data,
        images,
        accept_changed_data=accept_changed_data,
        device=device,
        check=labelled_images,
    )
    check_head(trained.model.head, f"the head of run {run}")
    config = FusionConfig(batches=batches)
    plan = plan_batches(config, trained.images, trained.data.spec, trained.config.batch_size)
    return Setup(trained.model, trained.extraction, plan, trained.data.spec)


def blocks_of(setup: Setup) -> list[list[BlockTheory]]:
    """The theory of every block, batch by batch."""
    drawn = draw_batches(setup.model.encoder, setup.plan, setup.extraction)
    return [trained_theory(setup.model.head, batch.h, batch.labels) for batch in drawn]


def batch_size_study(setup: Setup, sizes: Sequence[int] | None = None) -> list[StudyPoint]:
    """The same images in batches of other sizes; the reference is the batch of pretraining.

    `sizes` None: an eighth, a quarter and a half of it. Predicted are both what attention does with
    fewer tokens and what that changes in the next block's input.
    """
    reference = setup.plan.batch_size
    if sizes is None:
        sizes = [size for size in (reference // 8, reference // 4, reference // 2) if size >= 8]
    most = len(setup.plan.images) // 2
    if not sizes or min(sizes) < SMALLEST_BATCH or max(sizes) > most:
        raise UserError(
            f"batch sizes must lie between {SMALLEST_BATCH} and half the images, {most}; "
            f"got {', '.join(map(str, sizes)) or 'none'}"
        )
    at = blocks_of(setup)
    points = []
    for size in sorted({*sizes, reference}):
        count = min(len(setup.plan.images) // size, math.ceil(len(at) * reference / size))
        plan = setup.plan._replace(batch_size=size, batches=count)
        own = size == reference
        points += _points(float(size), at, at if own else blocks_of(setup._replace(plan=plan)), own)
    return points


def strength_study(setup: Setup, strengths: Sequence[float] = STRENGTHS) -> list[StudyPoint]:
    """The same images under other strengths of augmentation; the reference is that of pretraining.

    How the cosines of the rows that enter the first block fall is measured; what the blocks make
    of that is predicted.
    """
    own = setup.extraction.augment.strength
    at = blocks_of(setup)
    points = []
    for strength in sorted({*strengths, own}):
        augment = dataclasses.replace(setup.extraction.augment, strength=strength)
        extraction = dataclasses.replace(setup.extraction, augment=augment)
        found = at if strength == own else blocks_of(setup._replace(extraction=extraction))
        points += _points(strength, at, found, strength == own)
    return points


def agreement(points: Sequence[StudyPoint]) -> Agreement:
    """How well the change of the fusion gain away from the reference is predicted, over blocks and
    settings."""
    base = {point.tap: point for point in points if point.reference}
    changes = [
        (
            math.log(point.predicted_gain / base[point.tap].predicted_gain),
            math.log(point.measured_gain / base[point.tap].measured_gain),
        )
        for point in points
        if not point.reference
    ]
    predicted, measured = np.array(changes).T
    spread = min(predicted.std(), measured.std())
    return Agreement(
        correlation=float(np.corrcoef(predicted, measured)[0, 1]) if spread > 0 else math.nan,
        error=float(np.abs(predicted - measured).mean()),
        change=float(np.abs(measured).mean()),
    )


def _points(
    setting: float,
    at: list[list[BlockTheory]],
    found: list[list[BlockTheory]],
    reference: bool,
) -> list[StudyPoint]:
    """`at`: blocks at the reference, by batch; `found`: at this setting."""
    blocks = [mean_block(column) for column in zip(*at, strict=True)]
    here = [mean_block(column) for column in zip(*found, strict=True)]
    cosines = here[0].before
    points = []
    for place, (block, one) in enumerate(zip(blocks, here, strict=True)):
        # The width of the reference: that of few rows comes out smaller.
        batch = dataclasses.replace(one.batch, width=block.batch.width)
        weights = predicted_weights(cosines, block.betas, batch)
        points.append(
            StudyPoint(
                setting=setting,
                tap=block.tap,
                predicted_gain=fusion_gain(weights),
                measured_gain=one.measured_gain,
                predicted_mass=weights.masses[-2],
                measured_mass=one.measured_mass,
                within=one.before.within,
                reference=reference,
            )
        )
        if place + 1 < len(blocks):
            cosines = _shifted(blocks[place + 1].before, block, cosines, batch)
    return points


def _shifted(
    following: Cosines, block: BlockTheory, cosines: Cosines, batch: BatchShape
) -> Cosines:
    """The next block's input: that at the reference, moved by what the map says the change of this
    block's input and batch does. So what the map misses at the reference does not count again."""
    weights = predicted_weights(cosines, block.betas, batch)
    moved = mixed(cosines, weights, block.layer, batch)

    def shifted(known: float | None, new: float | None, old: float | None) -> float:
        return max(-1.0, min(1.0, (known or 0.0) + (new or 0.0) - (old or 0.0)))

    columns = zip(following, moved, block.predicted, strict=True)
    within, between, twin = (shifted(*column) for column in columns)
    return Cosines(within, between, None if following.twin is None else twin)
