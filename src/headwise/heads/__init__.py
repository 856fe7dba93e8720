"""Projection heads: identity, linear, MLP, FFN stacks, and Transformers over the batch."""

from headwise.heads.build import build_head, resolve
from headwise.heads.config import (
    COMPARED,
    HEADS,
    Context,
    HeadConfig,
    HeadName,
    ResolvedHead,
    for_head,
    small_head,
)
from headwise.heads.head import Head, with_uniform_attention
from headwise.heads.loss import leaks, loss_forms, loss_groups
from headwise.heads.own_head import sees_others

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
    "loss_forms",
    "loss_groups",
    "resolve",
    "sees_others",
    "small_head",
    "with_uniform_attention",
]
