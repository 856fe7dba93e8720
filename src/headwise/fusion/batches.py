"""The batches that fusion is measured on: two views of labelled images, as `h`."""

import logging
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from headwise import rng
from headwise.augment import view_batches
from headwise.data import Images, Splits
from headwise.errors import UserError
from headwise.evaluation.probes.labels import check_classes
from headwise.features.extract import at_taps, finite
from headwise.fusion.config import SMALLEST_BATCH, FusionConfig, Split
from headwise.model.extraction import ExtractConfig

log = logging.getLogger("headwise")


class EncodedBatch(NamedTuple):
    """`h` of two views of `n` images: `m` = 2n rows, all first views, then their twins."""

    h: Float[Tensor, "m p"]
    labels: Int64[Tensor, " n"]


class BatchPlan(NamedTuple):
    """The images to measure on, and the size and number of batches."""

    images: Images
    split: str
    """`test` or `train`."""
    batch_size: int
    batches: int
    seed: int


def plan_batches(
    config: FusionConfig, images: Splits, spec: str, batch_size: int, *, least: int = 2
) -> BatchPlan:
    """Plan batches of labelled test images, or of training images if there are none. Their size is
    `config.batch_size`, by default `batch_size`, but at most so large that `least` batches fit.

    Raises `UserError` if the images have no labels, fewer than two classes, or do not fill two
    batches.
    """
    split, selected = labelled_images(images, spec, config.split)
    if split != config.split:
        log.warning("%s has no labelled test images: fusion is measured on training images", spec)
    largest = len(selected) // 2
    fitting = max(SMALLEST_BATCH, len(selected) // min(config.batches, least))
    size = min(batch_size, fitting) if config.batch_size is None else config.batch_size
    if not SMALLEST_BATCH <= size <= largest:
        raise UserError(
            f"fusion needs 2 batches of at least {SMALLEST_BATCH} images each; {spec} has "
            f"{len(selected)} {split} images for batches of {size}; "
            + (f"try --batch-size {largest}" if largest >= SMALLEST_BATCH else "give more images")
        )
    count = min(config.batches, len(selected) // size)
    if count < config.batches:
        log.warning(
            "%d %s images make %d batches of %d, not %d, so intervals are wider; "
            "a smaller --batch-size makes more batches",
            len(selected),
            split,
            count,
            size,
            config.batches,
        )
    # With a seed of their own, training images get other views than they had in pretraining.
    return BatchPlan(selected, split, size, count, rng.seed_at(config.seed, "fusion"))


def labelled_images(images: Splits, spec: str, split: Split = "test") -> tuple[Split, Images]:
    """Return the split and its images, which need not be decoded: for `test` the training images
    if there are no labelled test images. Raises `UserError` if the images have no
    labels or fewer than two classes."""
    selected = images.test
    if split == "train" or selected is None or not len(selected) or selected.labels is None:
        split, selected = "train", images.train
    if selected.labels is None:
        raise UserError(
            f"fusion needs labels; {spec} has none; "
            "give labelled images: a folder for each class, or --data.label-column"
        )
    check_classes("fusion", selected.labels)
    return split, selected


def draw_batches(
    encoder: nn.Module, plan: BatchPlan, extraction: ExtractConfig
) -> list[EncodedBatch]:
    """Augment the images as in pretraining and encode them in evaluation mode. `h` is float32 on
    the device of `extraction`. A plan gives the same images and views for every encoder.

    Unreadable images are left out. Raises `UserError` if they are too many, and for a batch without
    two classes and a pair of images of one class.
    """
    assert plan.images.labels is not None, "labels were checked"
    labels = plan.images.labels.to(extraction.device)
    view_steps = view_batches(
        plan.images,
        extraction.augment,
        batch_size=plan.batch_size,
        steps=range(plan.batches),
        seed=plan.seed,
        device=extraction.device,
        workers=extraction.workers,
    )
    batches = []
    for views in view_steps:
        # An image that replaces another one is in the batch already, or in another one.
        kept = ~views.replaced
        parts = views.pixels[kept.repeat(2).to(views.pixels.device)].split(extraction.batch_size)
        h = torch.cat([_encode(encoder, part, extraction) for part in parts])
        batches.append(EncodedBatch(h, _checked(labels[views.shown[kept].to(labels.device)])))
    return batches


def _encode(
    encoder: nn.Module, pixels: Float[Tensor, "k 3 s s"], extraction: ExtractConfig
) -> Float[Tensor, "k p"]:
    return finite("fusion's", at_taps(encoder, None, pixels, ("h",), extraction)["h"])


def _checked(labels: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    counts = labels.unique(return_counts=True)[1]
    if len(counts) < 2 or counts.max() < 2:
        raise UserError(
            "every batch must hold two classes and two images of one class; got a batch of "
            f"{len(labels)} images of {len(counts)} classes; raise --batch-size"
        )
    return labels
