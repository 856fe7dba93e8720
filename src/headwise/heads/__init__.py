"""Projection heads: identity, linear, MLP, FFN stacks, and Transformers over the batch."""

from headwise.heads.config import (
    COMPARED,
    HEADS,
    Context,
    HeadConfig,
    HeadName,
    ResolvedHead,
    for_head,
    leaks,
    loss_groups,
    resolve,
    small_head,
)
from headwise.heads.head import Head, build_head, with_uniform_attention

__all__ = [
    "COMPARED",
    "HEADS",
    "Context",
    "Head",
    "HeadConfig",
    "HeadName",
    "ResolvedHead",
    "build_head",
    "for_head",
    "leaks",
    "loss_groups",
    "resolve",
    "small_head",
    "with_uniform_attention",
]
