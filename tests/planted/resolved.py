"""Resolved settings for tests that care about a few of them."""

from typing import Any

from headwise.augment import ResolvedAugment
from headwise.data import Images
from headwise.model.config import PretrainConfig, ResolvedConfig, resolve


def resolved_augment(**settings: Any) -> ResolvedAugment:
    """Settings of views, with plain values for those that are not given."""
    plain: dict[str, Any] = {
        "size": 32,
        "strength": 1.0,
        "blur": 0.0,
        "mean": (0.0,) * 3,
        "std": (1.0,) * 3,
    }
    return ResolvedAugment(**{**plain, **settings})


def resolved_config(images: Images, **settings: Any) -> ResolvedConfig:
    """Settings of a run on the CPU on so few images."""
    plain: dict[str, Any] = {
        "device": "cpu",
        "precision": "float32",
        "batch_size": 2,
        "compiled": False,
    }
    return resolve(PretrainConfig(**{**plain, **settings}), images)
