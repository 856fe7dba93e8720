"""The unfolded convolutions against torch's own in float64."""

import functools
import logging
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from narrow import gradient_of
from resolved import resolved_config
from torch import nn

from headwise.augment import AugmentConfig
from headwise.data.images import resident_images
from headwise.encoders.build import EncoderConfig, build_encoder
from headwise.encoders.convolution import (
    Conv2d,
    NarrowConv2d,
    replace_convolutions,
    unfold,
)
from headwise.model.build import build_model
from headwise.model.config import ResolvedConfig
from headwise.runtime.hardware import cpu_flags

# side of the kernel, stride, padding, channels in and out, side of the image: every route there is.
CASES = [
    (3, 1, 1, 8, 16, 2),
    (3, 1, 1, 8, 16, 4),
    (3, 1, 1, 8, 16, 7),
    (3, 1, 1, 16, 8, 12),
    (3, 2, 1, 8, 16, 1),
    (3, 2, 1, 8, 16, 8),
    (3, 2, 1, 8, 16, 9),
    (3, 2, 1, 8, 16, 20),
    (3, 1, 0, 8, 16, 6),
    (1, 1, 0, 8, 16, 5),
    (1, 2, 0, 8, 16, 8),
    (1, 2, 0, 8, 16, 9),
    (5, 1, 2, 4, 8, 3),
    (7, 2, 3, 3, 8, 32),
]


def convolution(side, stride, padding, into, out) -> nn.Sequential:
    torch.manual_seed(0)
    holder = nn.Sequential(nn.Conv2d(into, out, side, stride, padding, bias=False))
    replace_convolutions(holder)
    assert isinstance(holder[0], Conv2d)
    return holder.to(memory_format=torch.channels_last)


# Processors without bfloat16 arithmetic also round partial sums.
ROUNDING = 2**-8 if {"amx_bf16", "avx512_bf16"} & cpu_flags() else 2**-7


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bfloat16_output_and_gradients_are_the_exact_ones_rounded(case):
    _, stride, padding, into, _, size = case
    model = convolution(*case[:-1])
    own = model.get_parameter("0.weight")
    x = torch.randn(6, into, size, size).contiguous(memory_format=torch.channels_last)
    # Operands that bfloat16 holds exactly, so that only the sums can be rounded.
    x = x.bfloat16().float().requires_grad_()
    with torch.no_grad():
        own.copy_(own.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x)
    assert y.dtype == torch.bfloat16
    direction = torch.randn_like(y)
    y.backward(direction)

    exact, weight = (t.detach().double().clone().requires_grad_() for t in (x, own))
    expected = F.conv2d(exact, weight, None, stride, padding)
    expected.backward(direction.double())
    gradients = [(gradient_of(a), gradient_of(b)) for a, b in ((x, exact), (own, weight))]
    for ours, theirs in [(y, expected), *gradients]:
        assert ours.shape == theirs.shape
        error = (ours.double() - theirs).norm() / theirs.norm()
        assert error < ROUNDING


def test_outside_bfloat16_autocast_it_is_torchs_to_the_bit():
    model = convolution(3, 1, 1, 4, 8)
    plain = nn.Conv2d(4, 8, 3, 1, 1, bias=False)
    plain.load_state_dict(model[0].state_dict())
    x = torch.randn(2, 4, 2, 2)
    assert torch.equal(model(x), plain(x))
    with torch.autocast("cpu", torch.bfloat16, enabled=False):
        assert torch.equal(model(x.double().float()), plain(x))


def test_only_plain_square_convolutions_are_replaced_and_parameters_keep_names_and_values():
    kept = {
        "groups": nn.Conv2d(4, 4, 3, groups=2, bias=False),
        "bias": nn.Conv2d(4, 4, 3),
        "dilation": nn.Conv2d(4, 4, 3, dilation=2, bias=False),
        "oblong": nn.Conv2d(4, 4, (1, 3), bias=False),
        "reflect": nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect", bias=False),
        "same": nn.Conv2d(4, 4, 3, padding="same", bias=False),
        "uneven": nn.Conv2d(4, 4, 3, stride=(1, 2), bias=False),
    }
    model = nn.ModuleDict({**kept, "plain": nn.Conv2d(4, 4, 3, bias=False)})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    replace_convolutions(model)
    assert isinstance(model["plain"], Conv2d)
    assert all(type(model[name]) is nn.Conv2d for name in kept)
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_narrow_shortcuts_are_computed_without_a_stride_and_give_the_same():
    """With a stride, torch's backward of this shape ends the process under AVX2."""
    narrow = EncoderConfig(name="resnet-small", stem="small-strided", widths=(4, 8, 8, 8))
    kinds = [type(m) for m in build_encoder(narrow, 32, seed=0).modules()]
    assert kinds.count(NarrowConv2d) == 1  # 4 to 8 channels; the other shortcuts have 8
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = nn.Conv2d(4, 8, 1, 2, bias=False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = torch.randn(40, 4, 9, 9).to(memory_format=torch.channels_last)
        g = torch.randn(40, 8, 5, 5)
    weight, exact = plain.weight.detach().double().requires_grad_(), x.double().requires_grad_()
    expected = F.conv2d(exact, weight, stride=2)
    expected.backward(g.double())
    plain.__class__ = NarrowConv2d
    x.requires_grad_()
    found = plain(x)
    found.backward(g)
    for ours, theirs in (
        (found, expected),
        (gradient_of(x), gradient_of(exact)),
        (gradient_of(plain.weight), gradient_of(weight)),
    ):
        torch.testing.assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-4)


def test_unfold_is_torchs_with_channels_last():
    x = torch.arange(2 * 3 * 5 * 6.0).reshape(2, 3, 5, 6).bfloat16()
    rows = unfold(x, 3, 2, 1)
    theirs = F.unfold(x.float(), 3, stride=2, padding=1)
    theirs = theirs.unflatten(1, (3, 9)).permute(0, 3, 2, 1).reshape(len(rows), -1)
    assert torch.equal(rows.float(), theirs)


IMAGES = resident_images(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), None, (), ["0", "1"])


def config(**changes: Any) -> ResolvedConfig:
    encoder = EncoderConfig(name="resnet-small", stem="small-strided", widths=(8, 8, 8, 8))
    augment = AugmentConfig(size=changes.pop("size", 16))
    settings: dict[str, Any] = {"precision": "bfloat16", "encoder": encoder, "augment": augment}
    return resolved_config(IMAGES, **settings | changes)


def count(model: nn.Module) -> int:
    return sum(isinstance(module, Conv2d) for module in model.modules())


def test_a_model_has_them_in_bfloat16_unless_switched_off():
    assert count(build_model(config()).encoder) > 8
    assert count(build_model(config(unfolded_convolutions=False)).encoder) == 0
    assert count(build_model(config(precision="float32")).encoder) == 0


def test_encoders_down_to_one_pixel_stay_in_bfloat16_and_their_gradients_are_finite(caplog):
    with caplog.at_level(logging.WARNING, "headwise"):
        chosen = config(size=8)
        model = build_model(chosen)
        assert chosen.precision == "bfloat16"
        assert not caplog.records
        off = config(size=8, unfolded_convolutions=False)
    assert off.precision == "float32"
    assert "one pixel" in caplog.text
    model.encoder.train()
    with torch.autocast("cpu", torch.bfloat16):
        h = model.encoder(torch.randn(8, 3, 8, 8))
    h.float().square().sum().backward()
    assert all(gradient_of(p).isfinite().all() for p in model.encoder.parameters())


def test_a_compiled_encoder_computes_and_learns_the_same_under_the_same_names(monkeypatch):
    # The compiler's front alone; what its back makes of the graph is torch's own concern.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    views = torch.randn(6, 3, 16, 16)
    results = []
    for compiled in (False, True):
        model = build_model(config(precision="float32"))
        if compiled:
            model.compile_encoder()
        outputs = model(views)
        outputs.z.square().sum().backward()
        gradients = [p.grad for p in model.parameters()]
        results.append((outputs.h, model.state_dict(), gradients))
    (h, state, gradients), (h_compiled, state_compiled, gradients_compiled) = results
    torch.testing.assert_close(h_compiled, h)
    assert state.keys() == state_compiled.keys()
    for name, value in state.items():
        torch.testing.assert_close(state_compiled[name], value)
    for ours, theirs in zip(gradients_compiled, gradients, strict=True):
        torch.testing.assert_close(ours, theirs)
