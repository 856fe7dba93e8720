"""The batches that fusion is measured on: two views of labelled images, as `h`."""

import logging
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from headwise import rng
from headwise.augment import batch_index, view_batches
from headwise.data import Images, Splits
from headwise.errors import UserError
from headwise.evaluation.probes.labels import check_classes
from headwise.features.extract import ExtractConfig, at_taps, finite
from headwise.fusion.config import SMALLEST_BATCH, FusionConfig

log = logging.getLogger("headwise")


class Batch(NamedTuple):
    """Two views of `n` images: `m` = 2n rows, all first views, then their twins."""

    h: Float[Tensor, "m p"]
    labels: Int64[Tensor, " n"]


class Plan(NamedTuple):
    """Which images, in batches of which size."""

    images: Images
    split: str
    """`test` or `train`."""
    batch_size: int
    batches: int
    seed: int


def plan_batches(config: FusionConfig, images: Splits, spec: str, batch_size: int) -> Plan:
    """Labelled test images, or training images where there are none of those, in batches of
    `config.batch_size`, by default `batch_size`.

    Raises `UserError` for images without labels, of fewer than two classes, or too few for two
    batches.
    """
    split, chosen = "test", images.test
    if chosen is None or not len(chosen) or chosen.labels is None:
        split, chosen = "train", images.train
    if chosen.labels is None:
        raise UserError(
            f"fusion needs labels; {spec} has none; "
            "give labelled images: a folder for each class, or --data.label-column"
        )
    check_classes("fusion", chosen.labels)
    if split == "train":
        log.warning("%s has no labelled test images: fusion is measured on training images", spec)
    most = len(chosen) // 2
    size = min(batch_size, most) if config.batch_size is None else config.batch_size
    if not SMALLEST_BATCH <= size <= most:
        raise UserError(
            f"fusion needs 2 batches of at least {SMALLEST_BATCH} images each; {spec} has "
            f"{len(chosen)} {split} images for batches of {size}; "
            + (f"try --batch-size {most}" if most >= SMALLEST_BATCH else "give more images")
        )
    count = min(config.batches, len(chosen) // size)
    if count < config.batches:
        log.warning(
            "%d %s images make %d batches of %d, not %d: intervals are wider; "
            "a smaller --batch-size makes more",
            len(chosen),
            split,
            count,
            size,
            config.batches,
        )
    # A seed of its own: where training images serve, in other views than they were trained on.
    return Plan(chosen, split, size, count, rng.seed_at(config.seed, "fusion"))


def draw_batches(encoder: nn.Module, plan: Plan, how: ExtractConfig) -> list[Batch]:
    """Augmented as in pretraining and encoded in evaluation mode; `h` in float32 on the device of
    `how`. The same plan gives the same images and views, whatever the encoder.

    Raises `UserError` for a file that cannot be read, and for batches whose labels say nothing.
    """
    assert plan.images.labels is not None, "labels were checked"
    labels = plan.images.labels.to(how.device)
    made = view_batches(
        plan.images,
        how.augment,
        batch_size=plan.batch_size,
        steps=range(plan.batches),
        seed=plan.seed,
        device=how.device,
        workers=how.workers,
    )
    batches = []
    for step, (views, skipped) in enumerate(made):
        for name, reason in skipped:  # another image stands in its place, with another label
            raise UserError(f"fusion needs images that can be read; {name}: {reason}; remove it")
        index = batch_index(len(plan.images), plan.batch_size, step, plan.seed)
        h = torch.cat([_encode(encoder, part, how) for part in views.split(how.batch_size)])
        batches.append(Batch(h, _checked(labels[index.to(labels.device)])))
    return batches


def _encode(
    encoder: nn.Module, pixels: Float[Tensor, "k 3 s s"], how: ExtractConfig
) -> Float[Tensor, "k p"]:
    return finite("fusion's", at_taps(encoder, None, pixels, ("h",), how)["h"])


def _checked(labels: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    counts = labels.unique(return_counts=True)[1]
    if len(counts) < 2 or counts.max() < 2:
        raise UserError(
            "every batch must hold two classes and two images of one class; got a batch of "
            f"{len(labels)} images of {len(counts)} classes; raise --batch-size"
        )
    return labels
