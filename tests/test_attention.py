"""Attention over the batch, against torch's own."""

import math

import pytest
import torch
from torch import nn

from headwise.heads import Head, HeadConfig, build_head
from headwise.heads.blocks import Block
from headwise.heads.layers import Layout, layout

CONTEXTS = ("joint", "per-view", "self", "twin-masked")
NORMS = ("pre", "post")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def built(context: str, norm: str) -> Head:
    """A head of three blocks in float64 whose normalisations do something."""
    config = HeadConfig(
        name="transformer",
        depth=3,
        width=16,
        num_heads=4,
        output_size=8,
        norm=norm,
        context=context,
    )
    head = build_head(config, 12, seed=0).double().eval()
    for seed, module in enumerate(head.modules()):
        if isinstance(module, nn.LayerNorm):
            module.weight.data, module.bias.data = normal(16, seed=seed), normal(16, seed=-seed)
    return head


def by_hand(block: Block, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """The block with torch's own multi-head attention and the same weights."""
    width = x.shape[1]
    attention = nn.MultiheadAttention(width, block.num_heads, batch_first=True).double()
    attention.in_proj_weight.data, attention.in_proj_bias.data = block.qkv.weight, block.qkv.bias
    attention.out_proj.weight.data, attention.out_proj.bias.data = (
        block.merge.weight,
        block.merge.bias,
    )

    def attend(x):
        blocked = None if mask is None else ~mask
        return attention(x[None], x[None], x[None], attn_mask=blocked, need_weights=False)[0][0]

    def feed(x):
        first, _, second = block.feed_forward
        hidden = x @ first.weight.T + first.bias
        hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
        return hidden @ second.weight.T + second.bias

    def normed(x, norm):
        centred = x - x.mean(1, keepdim=True)
        variance = centred.square().mean(1, keepdim=True)
        return centred / (variance + norm.eps).sqrt() * norm.weight + norm.bias

    if block.pre_norm:
        x = x + attend(normed(x, block.norm_attention))
        return x + feed(normed(x, block.norm_feed_forward))
    x = normed(x + attend(x), block.norm_attention)
    return normed(x + feed(x), block.norm_feed_forward)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("context", CONTEXTS)
def test_a_block_is_the_textbooks(context, norm):
    n = 5
    head, x = built(context, norm), normal(2 * n, 16)
    block, who = head.layers[1], layout(context, 2 * n, 2, x.device)
    expected = [by_hand(block, rows, who.mask) for rows in x.chunk(who.sequences)]
    torch.testing.assert_close(block(x, who), torch.cat(expected), rtol=0, atol=1e-12)


def test_twin_masked_hides_the_twin_and_nothing_else():
    mask = layout("twin-masked", 8, 2, torch.device("cpu")).mask
    hidden = (~mask).nonzero().tolist()
    assert hidden == [[i, (i + 4) % 8] for i in range(8)]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("context", CONTEXTS)
def test_attention_weights_are_those_that_the_block_applies(context, norm):
    n, width, num_heads = 5, 16, 4
    head, h = built(context, norm), normal(2 * n, 12)
    who = layout(context, 2 * n, 2, h.device)
    weights = list(head.attention(h))
    assert len(weights) == 3
    length = 2 * n // who.sequences
    rows = head.layers[0](h)
    for block, shares in zip(head.layers[1:-1], weights, strict=True):
        assert shares.shape == (who.sequences, num_heads, length, length)
        total = torch.ones(shares.shape[:-1])
        torch.testing.assert_close(shares.sum(-1), total.to(shares), rtol=0, atol=1e-6)
        if who.mask is not None:
            assert (shares[..., ~who.mask] == 0).all()
            assert (shares[..., who.mask] > 0).all()
        # weights @ values, merged, is what the block adds to its input.
        x = block.norm_attention(rows) if block.pre_norm else rows
        values = (x @ block.qkv.weight[2 * width :].T + block.qkv.bias[2 * width :]).reshape(
            who.sequences, length, num_heads, width // num_heads
        )
        mixed = torch.einsum("shij,sjhe->sihe", shares.double(), values).reshape(2 * n, width)
        added = block.merge(mixed)
        expected = block._attend(x, who)
        torch.testing.assert_close(added, expected, rtol=0, atol=1e-12)
        rows = block(rows, who)


def test_a_head_without_blocks_has_no_attention():
    assert list(build_head(HeadConfig(), 12).attention(torch.zeros(4, 12))) == []
    assert Layout(1) == layout("joint", 6, 2, torch.device("cpu"))
