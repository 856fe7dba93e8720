"""Projection heads: identity, linear, MLP, FFN stack, and the Transformer over the batch."""

from headwise.heads.head import (
    HEADS,
    Head,
    HeadConfig,
    HeadName,
    build_head,
    for_head,
    leaks,
    resolve,
)

__all__ = ["HEADS", "Head", "HeadConfig", "HeadName", "build_head", "for_head", "leaks", "resolve"]
