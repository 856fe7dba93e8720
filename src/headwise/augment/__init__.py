"""Batched augmentation: two functions an operation, the policies made of them, and the batches."""

from headwise.augment.batches import batch_index, normalised, view_batches, whole, whole_batches
from headwise.augment.policies import (
    SMALL_PX,
    AugmentConfig,
    resolve,
    simclr,
    simclr_small,
    unnormalised,
)
from headwise.augment.sheet import write_sheet

__all__ = [
    "SMALL_PX",
    "AugmentConfig",
    "batch_index",
    "normalised",
    "resolve",
    "simclr",
    "simclr_small",
    "unnormalised",
    "view_batches",
    "whole",
    "whole_batches",
    "write_sheet",
]
