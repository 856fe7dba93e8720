"""Batched augmentation: operations as pairs of functions, policies made of them, and batches."""

from headwise.augment.batches import (
    batch_index,
    central_squares,
    normalised,
    view_batches,
    whole_batches,
)
from headwise.augment.policies import (
    PROBABILITIES,
    SIMCLR,
    SMALL_PX,
    AugmentConfig,
    Operator,
    ResolvedAugment,
    resolve,
    simclr,
    simclr_small,
    unnormalised,
    whole_images,
)
from headwise.augment.sheet import write_sheet

__all__ = [
    "PROBABILITIES",
    "SIMCLR",
    "SMALL_PX",
    "AugmentConfig",
    "Operator",
    "ResolvedAugment",
    "batch_index",
    "central_squares",
    "normalised",
    "resolve",
    "simclr",
    "simclr_small",
    "unnormalised",
    "view_batches",
    "whole_batches",
    "whole_images",
    "write_sheet",
]
