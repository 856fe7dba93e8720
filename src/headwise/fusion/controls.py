"""A head and the heads it is measured against."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from headwise.fusion.batches import Batch
from headwise.heads import Head, HeadConfig, build_head, with_uniform_attention


class Heads(NamedTuple):
    """A head and its controls for the same `h`, all in evaluation mode."""

    trained: Head
    untrained: Head
    """The same head with other first weights."""
    uniform: Head | None
    """The trained head with its attention spread evenly; None where it has none to spread."""


def with_controls(head: Head, config: HeadConfig, batches: Sequence[Batch], *, seed: int) -> Heads:
    """The head of this config with its controls. `seed`: that of the untrained head's weights."""
    p, device = batches[0].h.shape[1], batches[0].h.device
    untrained = with_statistics(build_head(config, p, seed).to(device), batches)
    spreads = config.name == "transformer"
    return Heads(head, untrained, with_uniform_attention(head) if spreads else None)


@torch.no_grad()
def with_statistics(head: Head, batches: Sequence[Batch]) -> Head:
    """A new head in evaluation mode. Its BatchNorm has seen no rows yet, so it takes the
    statistics of these batches."""
    for layer in head.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.momentum = None  # the plain mean over batches
    head.train()
    for batch in batches:
        head(batch.h, views=2)
    return head.eval()
