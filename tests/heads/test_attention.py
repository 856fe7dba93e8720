"""Attention over the batch, against torch's own."""

import math
import typing
from typing import Any

import pytest
import torch
from narrow import present
from torch import nn

from headwise.heads import Context, Head, HeadConfig, build_head, with_uniform_attention
from headwise.heads.blocks import Block, ReluBlock
from headwise.heads.config import Norm
from headwise.heads.layers import Layout, batch_layout

CONTEXTS: tuple[Context, ...] = typing.get_args(Context)
NORMS: tuple[Norm, ...] = ("pre", "post")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def built(context: Context, norm: Norm = "pre", **changes: Any) -> Head:
    """A head of three blocks in float64 whose normalisations do something."""
    config = HeadConfig(
        name="transformer",
        depth=3,
        width=16,
        num_heads=4,
        output_size=8,
        norm=norm,
        context=context,
        **changes,
    )
    head = build_head(config, 12, seed=0).double().eval()
    for seed, module in enumerate(head.modules()):
        if isinstance(module, nn.LayerNorm):
            module.weight.data, module.bias.data = normal(16, seed=seed), normal(16, seed=-seed)
    return head


def by_hand(block: Any, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """The block with torch's own multi-head attention and the same weights; with the first
    projection of queries, keys and values before it where there is one."""
    width = x.shape[1]
    attention = nn.MultiheadAttention(width, block.num_heads, batch_first=True).double()
    attention.in_proj_weight.data, attention.in_proj_bias.data = block.qkv.weight, block.qkv.bias
    attention.out_proj.weight.data, attention.out_proj.bias.data = (
        block.merge.weight,
        block.merge.bias,
    )

    def attend(x):
        blocked = None if mask is None else ~mask
        three = [x, x, x] if block.first is None else block.first(x).split(width, 1)
        inputs = [part[None] for part in three]
        return attention(*inputs, attn_mask=blocked, need_weights=False)[0][0]

    def feed(x):
        first, middle, second = block.feed_forward
        hidden = x @ first.weight.T + first.bias
        if isinstance(middle, nn.ReLU):
            hidden = hidden * (hidden > 0)
        else:
            hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
        return hidden @ second.weight.T + second.bias

    def normed(x, norm):
        centred = x - x.mean(1, keepdim=True)
        variance = centred.square().mean(1, keepdim=True)
        return centred / (variance + norm.eps).sqrt() * norm.weight + norm.bias

    r = block.residual
    if block.pre_norm:
        x = r * x + attend(normed(x, block.norm_attention))
        return r * x + feed(normed(x, block.norm_feed_forward))
    x = normed(r * x + attend(x), block.norm_attention)
    return normed(r * x + feed(x), block.norm_feed_forward)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("context", CONTEXTS)
def test_a_block_is_the_textbooks(context, norm):
    n = 5
    head, x = built(context, norm), normal(2 * n, 16)
    block, layout = head.layers[1], batch_layout(context, 2 * n, 2, x.device)
    expected = [by_hand(block, rows, layout.mask) for rows in x.chunk(layout.sequences)]
    torch.testing.assert_close(block(x, layout), torch.cat(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_a_block_of_the_published_variants_is_the_textbooks(norm):
    changes = {"double_projection": True, "residual": 0.5, "activation": "relu"}
    head, x = built("joint", norm, **changes), normal(10, 16)
    block, layout = head.layers[1], batch_layout("joint", 10, 2, x.device)
    torch.testing.assert_close(block(x, layout), by_hand(block, x, None), rtol=0, atol=1e-12)


def test_the_first_commits_block_normalises_over_the_batch_and_drops_its_input():
    head, x = built("joint", "batch", residual=0.0, activation="relu").train(), normal(10, 16)
    block = head.layers[1]
    assert isinstance(block.norm_attention, nn.BatchNorm1d)
    rows = block(x, batch_layout("joint", 10, 2, x.device))
    torch.testing.assert_close(rows.mean(0), torch.zeros(16).double(), rtol=0, atol=1e-12)
    # Without residual the input comes in through attention alone: flat attention, flat rows.
    even = with_uniform_attention(head).layers[1]
    flat = even(x, batch_layout("joint", 10, 2, x.device))
    torch.testing.assert_close(flat, flat[:1].expand_as(flat), rtol=0, atol=1e-9)


@pytest.mark.parametrize("context", CONTEXTS)
def test_uniform_attention_weighs_all_rows_in_view_alike(context):
    n, h = 5, normal(10, 12)
    trained = built(context)
    for head in (built(context, attention="uniform"), with_uniform_attention(trained)):
        for weights in head.attention(h, views=2):
            layout = batch_layout(context, 2 * n, 2, h.device)
            seen = (
                torch.ones_like(weights) if layout.mask is None else layout.mask.expand_as(weights)
            )
            even = seen.double() / seen.sum(-1, keepdim=True)
            torch.testing.assert_close(weights, even, rtol=0, atol=1e-12)
    assert not any(layer.uniform for layer in trained.layers if isinstance(layer, Block))
    head.train()(h, views=2).square().sum().backward()
    assert all(p.grad is not None for p in head.parameters() if p.requires_grad)


@pytest.mark.parametrize("context", CONTEXTS)
def test_relu_attention_is_a_plain_loops(context):
    """TransFusion's layer: a_ij = max(0, cos(q_i, k_j)) for j ≠ i in view, over its row's sum."""
    n, x = 4, normal(8, 16)
    block = ReluBlock(16).double()
    layout = batch_layout(context, 2 * n, 2, x.device)
    query, key, value = (x @ block.qkv.weight.T + block.qkv.bias).detach().split(16, 1)
    expected = x.clone()
    for i in range(2 * n):
        length = 2 * n // layout.sequences
        row = torch.zeros(2 * n).double()
        for j in range(2 * n):
            in_view = i // length == j // length and (
                layout.mask is None or bool(layout.mask[i, j])
            )
            if in_view and i != j:
                row[j] = max(0.0, float(query[i] @ key[j] / (query[i].norm() * key[j].norm())))
        if row.sum() > 0:
            expected[i] += row @ value / row.sum()
    torch.testing.assert_close(block(x, layout), expected, rtol=0, atol=1e-12)
    weights = block.attention(x, layout)
    assert weights.diagonal(dim1=-2, dim2=-1).abs().max() == 0
    with pytest.raises(ValueError, match="softmax"):
        with_uniform_attention(Head([block], "joint"))


def test_halves_sees_itself_and_the_other_half():
    mask = present(batch_layout("halves", 10, 2, torch.device("cpu")).mask)
    first = [0, 1, 2, 5, 6, 7]  # three of five images, both views
    second = [3, 4, 8, 9]
    for row in range(10):
        others = second if row in first else first
        assert mask[row].nonzero().flatten().tolist() == sorted([row, *others])


def test_twin_masked_hides_the_twin_and_nothing_else():
    mask = present(batch_layout("twin-masked", 8, 2, torch.device("cpu")).mask)
    hidden = (~mask).nonzero().tolist()
    assert hidden == [[i, (i + 4) % 8] for i in range(8)]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("context", CONTEXTS)
def test_attention_weights_are_those_that_the_block_applies(context, norm):
    n, width, num_heads = 5, 16, 4
    head, h = built(context, norm), normal(2 * n, 12)
    layout = batch_layout(context, 2 * n, 2, h.device)
    weights = list(head.attention(h, views=2))
    assert len(weights) == 3
    length = 2 * n // layout.sequences
    rows = head.layers[0](h)
    blocks: Any = head.layers[1:-1]
    for block, shares in zip(blocks, weights, strict=True):
        assert shares.shape == (layout.sequences, num_heads, length, length)
        total = torch.ones(shares.shape[:-1])
        torch.testing.assert_close(shares.sum(-1), total.to(shares), rtol=0, atol=1e-6)
        if layout.mask is not None:
            assert (shares[..., ~layout.mask] == 0).all()
            assert (shares[..., layout.mask] > 0).all()
        # weights @ values, merged, is what the block adds to its input.
        x = block.norm_attention(rows) if block.pre_norm else rows
        values = (x @ block.qkv.weight[2 * width :].T + block.qkv.bias[2 * width :]).reshape(
            layout.sequences, length, num_heads, width // num_heads
        )
        mixed = torch.einsum("shij,sjhe->sihe", shares.double(), values).reshape(2 * n, width)
        added = block.merge(mixed)
        expected = block._attend(x, layout)
        torch.testing.assert_close(added, expected, rtol=0, atol=1e-12)
        rows = block(rows, layout)


def test_a_head_without_blocks_has_no_attention():
    assert list(build_head(HeadConfig(), 12).attention(torch.zeros(4, 12))) == []
    assert Layout(1) == batch_layout("joint", 6, 2, torch.device("cpu"))
