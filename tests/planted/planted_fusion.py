"""Heads whose attention is set by hand, and batches whose `h` says class, image and view."""

from typing import Any

import torch
import torch.nn.functional as F

from headwise.fusion.batches import EncodedBatch
from headwise.fusion.controls import HeadWithControls, with_controls
from headwise.heads import Context, Head, HeadConfig, build_head
from headwise.heads.blocks import Block

IMAGES, CLASSES = 16, 4
_VIEWS = 2
P = CLASSES + IMAGES + _VIEWS

# So much larger is the logit of what is attended to: exp(−100) is nothing beside 1.
_GAP = 100.0


def coded_batches(count: int) -> list[EncodedBatch]:
    """Balanced labels in a new order each. Every row has the same mean and norm, so that LayerNorm
    changes all rows alike; the class is a small part of it."""
    batches = []
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(IMAGES, generator=generator)
        labels = (torch.arange(IMAGES) % CLASSES)[order]
        image = F.one_hot(torch.arange(IMAGES).repeat(2), IMAGES)
        view = F.one_hot(torch.arange(2).repeat_interleave(IMAGES), _VIEWS)
        h = torch.cat([0.3 * F.one_hot(labels.repeat(2), CLASSES), image, view], 1)
        batches.append(EncodedBatch(h, labels))
    return batches


def config(context: Context = "joint", depth: int = 2) -> HeadConfig:
    """Two attention heads, each as wide as `h`."""
    return HeadConfig(
        name="transformer",
        depth=depth,
        width=2 * P,
        num_heads=2,
        output_size=8,
        context=context,
    )


@torch.no_grad()
def planted_head(*patterns: str, context: Context = "joint", depth: int = 2) -> Head:
    """A head whose two attention heads follow these patterns in every block: `class` (evenly to
    all rows of the own class), `twin` (to the twin alone), `uniform`. Blocks pass rows on as they
    are."""
    head = build_head(config(context, depth), P, seed=0).eval()
    layers: Any = head.layers
    first, *blocks, _ = layers
    first.weight.copy_(torch.eye(2 * P, P))
    first.bias.zero_()
    for block in blocks:
        block.merge.weight.zero_()
        block.merge.bias.zero_()
        block.feed_forward[-1].weight.zero_()
        block.feed_forward[-1].bias.zero_()
        block.qkv.weight.zero_()
        block.qkv.bias.zero_()
        query, key, _ = block.qkv.weight.unflatten(0, (3, 2, P))[..., :P]
        for place, pattern in enumerate(patterns):
            _set(query[place], key[place], pattern)
        _scale(block, first(coded_batches(1)[0].h))
    return head


def planted(
    *patterns: str, batches: list[EncodedBatch], context: Context = "joint", depth: int = 2
) -> HeadWithControls:
    """Such a head with its controls."""
    head = planted_head(*patterns, context=context, depth=depth)
    return with_controls(head, config(context, depth), batches, seed=1)


def _set(query: torch.Tensor, key: torch.Tensor, pattern: str) -> None:
    """Logits that are largest for what the pattern attends to; of any size."""
    of_class, of_image = torch.arange(CLASSES), torch.arange(CLASSES, CLASSES + IMAGES)
    first, second = CLASSES + IMAGES, CLASSES + IMAGES + 1
    match pattern:
        case "class":
            query[of_class, of_class] = key[of_class, of_class] = 1 / 0.3
        case "twin":
            query[of_image, of_image] = key[of_image, of_image] = 1
            query[first, first] = query[second, second] = 1
            key[first, second] = key[second, first] = 1
        case "uniform":
            pass
        case _:
            raise AssertionError(pattern)


def _scale(block: Block, rows: torch.Tensor) -> None:
    """So that one step of a pattern is `_GAP` in the logits."""
    scale = 1 / rows[0].std(correction=0)  # of LayerNorm
    block.qkv.weight.mul_((_GAP * P**0.5) ** 0.5 / scale)
