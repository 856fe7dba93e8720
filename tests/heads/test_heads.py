"""Projection heads: sizes, settings, taps, and who depends on whom."""

import dataclasses
import itertools
import typing
from typing import Any

import pytest
import torch
from narrow import present
from torch import nn

from headwise.errors import UserError
from headwise.heads import (
    HEADS,
    Context,
    HeadConfig,
    HeadName,
    build_head,
    for_head,
    loss_groups,
    resolve,
)
from headwise.heads.config import Norm

CONTEXTS = typing.get_args(Context)
NORMS: tuple[Norm, ...] = ("pre", "post", "batch")

# First and last number of z of every default head: its weights of seed 0, in evaluation mode.
GOLDEN = [
    ("linear", 0.837861, 0.0513672),
    ("mlp", 0.0120502, -0.332732),
    ("ffn", -5.13230e-06, 6.24324e-05),
    ("ffn-matched", 0.557033, -0.383406),
    ("transformer", 0.160482, -0.481597),
    ("transfusion", -0.130079, 0.341995),
    ("batchformer", 0.0120502, -0.332732),
]


def transformer(context: Context = "joint", norm: Norm = "pre", **changes: Any) -> HeadConfig:
    values: dict[str, Any] = {"depth": 3, "width": 16, "num_heads": 4, "output_size": 8} | changes
    return HeadConfig(name="transformer", context=context, norm=norm, **values)


def small(name: HeadName) -> HeadConfig:
    """A quick config of each head."""
    sizes: dict[str, Any] = {"depth": 3, "width": 16, "num_heads": 4, "output_size": 8}
    own = dataclasses.asdict(resolve(HeadConfig(name=name), 16))
    return HeadConfig(name=name, **{key: sizes[key] for key in sizes if own[key] is not None})


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def built(config: HeadConfig, p: int = 12, *, training: bool = False, seed: int = 0):
    """A head in float64 whose normalisations do something."""
    head = build_head(config, p, seed).double().train(training)
    generator = torch.Generator().manual_seed(1)
    for module in head.modules():
        if isinstance(module, nn.LayerNorm | nn.BatchNorm1d):
            module.weight.data = 0.5 + torch.rand(module.weight.shape, generator=generator).double()
        if isinstance(module, nn.BatchNorm1d):
            shape = present(module.running_mean).shape
            module.running_mean = 0.1 * torch.randn(shape, generator=generator).double()
            module.running_var = 0.5 + torch.rand(shape, generator=generator).double()
    return head


def parameters(head: nn.Module) -> int:
    return sum(p.numel() for p in head.parameters())


def trained(head: nn.Module) -> int:
    return sum(p.numel() for p in head.parameters() if p.requires_grad)


def test_identity_and_linear_sizes():
    for config, expected in [
        (HeadConfig(name="identity"), 0),
        (HeadConfig(name="identity", batch_norm=True), 512),
        (HeadConfig(name="linear"), 512 * 128 + 128),  # a scale
        (HeadConfig(name="linear", batch_norm=False), 512 * 128 + 128),  # a bias
    ]:
        assert trained(build_head(config, 512)) == expected


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_mlp_size(depth, batch_norm):
    p, d = 96, 40
    config = HeadConfig(name="mlp", depth=depth, output_size=d, batch_norm=batch_norm)
    sizes = [p] * depth + [d]  # SimCLR: hidden layers of size p
    # BatchNorm has a scale and a shift, and takes the place of the bias.
    beside = 2 if batch_norm else 1
    expected = sum(a * b + beside * b for a, b in itertools.pairwise(sizes))
    head = build_head(config, p)
    assert trained(head) == expected - (d if batch_norm else 0)  # the last has no shift
    assert sum(isinstance(module, nn.ReLU) for module in head.modules()) == depth - 1
    if batch_norm:
        assert trained(build_head(dataclasses.replace(config, shift=True), p)) == expected


@pytest.mark.parametrize("name", ["identity", "linear", "mlp", "ffn", "ffn-matched", "transformer"])
def test_heads_end_in_simclrs_batch_norm(name):
    """z has mean 0 and, at first, variance 1 over the batch; a scale is trained, and no shift."""
    config = HeadConfig(name=name, batch_norm=True if name == "identity" else None)
    head = build_head(config, 12).double().train()
    z = head(3 + normal(64, 12), views=2)
    torch.testing.assert_close(z.mean(0), torch.zeros_like(z[0]), rtol=0, atol=1e-9)
    torch.testing.assert_close(z.var(0, correction=0), torch.ones_like(z[0]), rtol=0, atol=0.01)
    *_, last = (module for module in head.modules() if isinstance(module, nn.BatchNorm1d))
    assert (last.weight.requires_grad, last.bias.requires_grad) == (True, False)


def test_the_heads_of_version_0_1():
    """linear was a linear layer with a bias, and the last BatchNorm of mlp learned a shift."""
    linear = build_head(HeadConfig(name="linear", batch_norm=False), 12)
    assert list(linear.state_dict()) == ["layers.0.weight", "layers.0.bias"]
    mlp = build_head(HeadConfig(name="mlp", shift=True), 12)
    assert all(p.requires_grad for p in mlp.parameters())
    assert mlp.state_dict().keys() == build_head(HeadConfig(name="mlp"), 12).state_dict().keys()


def test_ffn_is_deep_fusions():
    p, width, d = 512, 256, 512
    head = build_head(HeadConfig(name="ffn"), p)
    stack = 10 * (width * width + 2 * width)
    assert stack == pytest.approx(0.66e6, rel=0.01)
    assert parameters(head) == (p * width + width) + stack + (width * d + 2 * d)
    assert sum(isinstance(module, nn.ReLU) for module in head.modules()) == 10


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("double", [False, True])
def test_transformer_is_deep_fusions(norm, double):
    p, width, hidden, d = 512, 256, 1024, 512
    config = HeadConfig(name="transformer", depth=10, norm=norm, double_projection=double)
    head = build_head(config, p)
    attention = 4 * (width * width + width)  # q, k, v, and the merge of the heads
    feed_forward = width * hidden + hidden + hidden * width + width
    if double:  # their code projects q, k and v twice
        attention += 3 * (width * width + width)
    stack = 10 * (attention + feed_forward + 2 * 2 * width)
    assert parameters(head) == (p * width + width) + stack + (width * d + 2 * d)
    if double:
        assert stack == pytest.approx(9.87e6, rel=1e-3)


@pytest.mark.parametrize("width", [16, 256])
@pytest.mark.parametrize("norm", NORMS)
def test_ffn_matched_has_as_many_parameters_as_the_transformer(norm, width):
    one, other = (
        parameters(build_head(HeadConfig(name=name, depth=4, width=width, norm=norm), 64))
        for name in ("ffn-matched", "transformer")
    )
    # A hidden unit more or less in each block is the nearest there is.
    assert abs(one - other) <= 4 * (2 * width + 1) / 2


def test_the_later_variant_is_blocks_of_width_p_and_the_mlp():
    config = HeadConfig(name="transformer", output="mlp", depth=2, output_size=128)
    head = build_head(config, 64)
    block = 4 * (64 * 64 + 64) + 2 * 64 * 256 + 256 + 64 + 4 * 64
    assert parameters(head) == 2 * block + (64 * 64 + 2 * 64) + (64 * 128 + 2 * 128)
    assert head.block_taps == ("g1", "g2")
    with pytest.raises(UserError, match=r"head\.output mlp must be the encoder's p, 64; got 32"):
        build_head(HeadConfig(name="transformer", output="mlp", width=32), 64)


@pytest.mark.parametrize(("place", "at"), [("before", 12), ("inside", 16), ("after", 8)])
def test_transfusions_blocks_stand_where_they_are_put(place, at):
    config = HeadConfig(name="transfusion", depth=2, width=16, output_size=8, place=place)
    head = built(config)
    taps = head.taps(normal(6, 12), views=2)
    assert [taps[name].shape[1] for name in head.block_taps] == [at, at]
    assert taps["z"].shape == (6, 8)


def test_the_mlp_without_activation_is_linear():
    heads = {
        activation: built(HeadConfig(batch_norm=False, width=8, activation=activation))
        for activation in ("none", "relu", "gelu")
    }
    a, b = normal(6, 12), normal(6, 12, seed=1)
    bent = {
        name: (head(a + b) - head(a) - head(b) + head(0 * a)).abs().max().item()
        for name, head in heads.items()
    }
    assert bent["none"] < 1e-12
    assert min(bent["relu"], bent["gelu"]) > 1e-3
    with pytest.raises(UserError, match="activation none is only for the mlp head"):
        HeadConfig(name="transformer", activation="none")


def test_only_halves_splits_the_loss():
    groups = {context: loss_groups(transformer(context)) for context in CONTEXTS}
    assert groups == {**dict.fromkeys(CONTEXTS, 1), "halves": 2}


def test_defaults_are_the_heads_own():
    assert dataclasses.asdict(resolve(HeadConfig(), 512)) == {
        "name": "mlp",
        "depth": 2,
        "width": 512,
        "output_size": 128,
        "batch_norm": True,
        "shift": False,
        "num_heads": None,
        "ratio": None,
        "norm": None,
        "context": None,
        "attention": None,
        "activation": "relu",
        "residual": None,
        "double_projection": None,
        "output": None,
        "place": None,
        "own": None,
    }
    default = resolve(HeadConfig(name="transformer"), 512)
    assert (default.depth, default.width, default.num_heads) == (4, 256, 16)
    assert (default.ratio, default.norm, default.context) == (4.0, "pre", "joint")
    for name in HEADS:
        resolved = resolve(HeadConfig(name=name), 64)
        assert resolve(resolved, 64) == resolved


def test_the_output_layers_bias_is_frozen_and_nothing_else():
    for name in ("mlp", "ffn", "transformer"):
        head = build_head(HeadConfig(name=name, depth=10), 64)
        frozen = [key for key, p in head.named_parameters() if not p.requires_grad]
        assert frozen == [f"layers.{9 if name == 'mlp' else 11}.1.bias"]
        assert head.get_parameter(frozen[0]).abs().max() == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "identity", "depth": 2}, r"not a setting of the identity .*: batch_norm$"),
        (
            {"name": "linear", "width": 8},
            r"head\.width is not .* settings: output_size, batch_norm",
        ),
        ({"name": "linear", "shift": True}, r"head\.shift is not a setting of the linear head"),
        ({"shift": True, "batch_norm": False}, r"head\.shift must come with head\.batch_norm"),
        ({"name": "mlp", "context": "joint"}, r"head\.context is not a setting of the mlp head"),
        ({"name": "ffn", "batch_norm": False}, r"head\.batch_norm is not a setting of the ffn"),
        ({"name": "mlp", "depth": 0}, r"head\.depth must be positive; got 0"),
        ({"name": "transformer", "ratio": -1.0}, r"head\.ratio must be positive"),
        ({"name": "transformer", "residual": -1.0}, r"head\.residual must not be negative"),
    ],
    ids=str,
)
def test_settings_that_do_not_apply_are_errors(values, message):
    with pytest.raises(UserError, match=message):
        HeadConfig(**values)


def test_width_must_divide_among_the_attention_heads():
    with pytest.raises(UserError, match=r"width must be a multiple of head\.num_heads; got 20 and"):
        build_head(HeadConfig(name="transformer", width=20), 8)


def test_for_head_gives_other_heads_their_own_settings():
    config = HeadConfig(name="transformer", depth=4, width=16, output_size=32, context="self")
    assert for_head(config, "transformer") == config
    for name in set(HEADS) - {"transformer"}:
        assert for_head(config, name) == HeadConfig(name=name)


@pytest.mark.parametrize("name", HEADS)
def test_taps_cut_the_head_anywhere(name):
    head, h = built(small(name)), normal(10, 12)
    z, taps = head(h, views=2), head.taps(h, views=2)
    count = len(head.layers)
    assert head.tap_names == (*(f"g{i}" for i in range(1, count)), "z")
    assert tuple(taps) == head.tap_names
    assert len(head.block_taps) == (3 if name.startswith("trans") else 0)
    assert torch.equal(taps["z"], z)
    for first, tap in enumerate(taps.values(), 1):
        rest = head.layers[first:]
        again = type(head)(list(rest), head.context)(tap, views=2)
        assert torch.equal(again, z)


def test_the_identity_heads_z_is_h():
    h = normal(6, 5)
    head = build_head(HeadConfig(name="identity"), 5)
    assert torch.equal(head(h), h)
    assert head.tap_names == ("z",)
    normed = build_head(HeadConfig(name="identity", batch_norm=True), 5).double()
    expected = torch.nn.functional.batch_norm(h, None, None, training=True)
    torch.testing.assert_close(normed(h), expected, rtol=0, atol=1e-12)
    assert normed.tap_names == ("z",)


@pytest.mark.parametrize("name", HEADS)
def test_weights_are_a_function_of_the_seed_and_the_global_generator_is_left_alone(name):
    before = torch.random.get_rng_state()
    one, same, other = (build_head(small(name), 12, seed).state_dict() for seed in (5, 5, 6))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[key], same[key]) for key in one)
    weights = [key for key in one if key.endswith("weight") and one[key].dim() == 2]
    assert all(not torch.equal(one[key], other[key]) for key in weights)
    assert bool(weights) == (name != "identity")


def test_every_head_is_pinned():
    assert [name for name, _, _ in GOLDEN] == [name for name in HEADS if name != "identity"]


@pytest.mark.parametrize(("name", "first", "last"), GOLDEN)
def test_golden(name, first, last):
    """A change of these numbers needs a line under *Numerics* in the changelog: the same seed would
    give another head."""
    head = build_head(HeadConfig(name=name), 64).eval()
    with torch.no_grad():
        z = head(torch.arange(8 * 64).reshape(8, 64).sin(), views=2)
    assert z[0, 0].item() == pytest.approx(first, rel=1e-4)
    assert z[-1, -1].item() == pytest.approx(last, rel=1e-4)


# Who depends on whom


def shuffled_pairs(n: int, context: str | None) -> torch.Tensor:
    """Rows in another order, twins together; each half of the images within itself where the
    context knows halves."""
    generator = torch.Generator().manual_seed(0)
    parts = torch.arange(n).chunk(2 if context == "halves" else 1)
    order = torch.cat([part[torch.randperm(len(part), generator=generator)] for part in parts])
    assert not torch.equal(order, torch.arange(n))
    return torch.cat([order, order + n])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("context", CONTEXTS)
def test_permuting_the_images_permutes_the_projections(context, norm, training):
    n = 7
    head, h = built(transformer(context, norm), training=training), normal(2 * n, 12)
    order = shuffled_pairs(n, context)
    torch.testing.assert_close(head(h[order], views=2), head(h, views=2)[order], rtol=0, atol=1e-12)


@pytest.mark.parametrize("context", ["joint", "self"])
def test_permuting_all_rows_permutes_the_projections(context):
    head, h = built(transformer(context)), normal(14, 12)
    order = torch.randperm(14, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(head(h[order], views=2), head(h, views=2)[order], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in HEADS if name != "transformer"])
def test_permuting_all_rows_permutes_the_projections_of_other_heads(name):
    head, h = built(small(name), training=True), normal(14, 12)
    order = torch.randperm(14, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(head(h[order], views=2), head(h, views=2)[order], rtol=0, atol=1e-12)


def influence(head: nn.Module, h: torch.Tensor, views: int = 2) -> torch.Tensor:
    """Which row's `h` (columns) moves which row's `z` (rows): the Jacobian, where it is not 0."""
    jacobian = torch.autograd.functional.jacobian(lambda h: head(h, views=views), h)
    return jacobian.abs().sum((1, 3)) > 1e-14


def test_who_depends_on_whom():
    n = 4
    h, eye = normal(2 * n, 12), torch.eye(2 * n, dtype=torch.bool)
    view = torch.arange(2 * n) // n
    same_view = view[:, None] == view
    twins = eye.roll(n, 1)
    half = torch.arange(2 * n) % n // (n // 2)
    expected: dict[Context, torch.Tensor] = {
        "joint": torch.ones_like(eye),
        "per-view": same_view,
        "self": eye,
        "twin-masked": ~twins,
        "halves": eye | (half[:, None] != half),
    }
    for context, who in expected.items():
        # One block: through two, a masked twin comes back by way of the others.
        head = built(transformer(context, depth=1))
        assert torch.equal(influence(head, h), who), context
        assert head.batch_aware == (context != "self")
    for name in ("identity", "linear", "mlp", "ffn", "ffn-matched"):
        head = built(small(name))
        assert torch.equal(influence(head, h), eye), name
        assert not head.batch_aware


def test_per_view_is_each_view_alone_and_self_each_row_alone():
    h = normal(12, 12)
    per_view = built(transformer("per-view"))
    alone = torch.cat([per_view(view, views=1) for view in h.chunk(2)])
    torch.testing.assert_close(per_view(h, views=2), alone, rtol=0, atol=1e-12)
    itself = built(transformer("self"))
    alone = torch.cat([itself(row[None], views=1) for row in h])
    torch.testing.assert_close(itself(h), alone, rtol=0, atol=1e-12)


def test_in_evaluation_with_one_view_all_contexts_but_self_see_the_whole_batch():
    h = normal(6, 12)
    z = {context: built(transformer(context))(h, views=1) for context in CONTEXTS}
    assert torch.equal(z["joint"], z["per-view"])
    assert torch.equal(z["joint"], z["twin-masked"])
    assert (influence(built(transformer("halves")), h, views=1)).all()  # by way of the other half
    assert not torch.allclose(z["joint"], z["self"])
