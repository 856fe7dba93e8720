"""The heads that a trained head is compared with."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from headwise.fusion.batches import EncodedBatch
from headwise.heads import Head, HeadConfig, build_head, with_uniform_attention

UNTRAINED = 5
"""Number of untrained heads. Their gains differ, so that one of them alone could be a low one."""


class HeadWithControls(NamedTuple):
    """A head and its controls for the same `h`, all in evaluation mode."""

    trained: Head
    untrained: tuple[Head, ...]
    """Heads with the same config and other initial weights."""
    uniform: Head | None
    """The trained head with uniform attention. None if it has no softmax attention."""


def with_controls(
    head: Head, config: HeadConfig, batches: Sequence[EncodedBatch], *, seed: int
) -> HeadWithControls:
    """Return the head with its controls. `seed` is that of the first untrained head's weights; each
    further one has the next seed."""
    p, device = batches[0].h.shape[1], batches[0].h.device
    draws = (build_head(config, p, seed + i).to(device) for i in range(UNTRAINED))
    untrained = tuple(with_statistics(draw, batches) for draw in draws)
    uniform = with_uniform_attention(head) if config.name == "transformer" else None
    return HeadWithControls(head, untrained, uniform)


@torch.no_grad()
def with_statistics(head: Head, batches: Sequence[EncodedBatch]) -> Head:
    """Put an untrained head in evaluation mode, after its BatchNorm has taken the statistics of
    these batches, because it has none yet."""
    for layer in head.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.momentum = None  # takes the mean over batches
    head.train()
    for batch in batches:
        head(batch.h, views=2)
    return head.eval()
