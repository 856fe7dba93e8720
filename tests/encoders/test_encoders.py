"""Encoders: stems, sizes, and what cannot be made."""

import dataclasses
import itertools
from typing import Any

import pytest
import torch

from headwise.encoders.build import (
    EncoderConfig,
    build_encoder,
    representation_size,
    resolve,
    strides_over_one_pixel,
)
from headwise.errors import UserError

SMALL = EncoderConfig(name="resnet-small")


def before_stages(encoder: Any, size: int) -> torch.Size:
    """Shape of what the first stage sees of one image."""
    shapes = []
    hook = encoder.layer1.register_forward_pre_hook(lambda _, x: shapes.append(x[0].shape[1:]))
    with torch.no_grad():
        encoder.eval()(torch.zeros(1, 3, size, size))
    hook.remove()
    return shapes[0]


@pytest.mark.parametrize(
    ("stem", "size", "side"),
    [
        ("small", 32, 32),
        ("small-strided", 32, 16),
        ("standard", 32, 8),
        ("auto", 32, 32),
        ("auto", 64, 64),
        ("auto", 65, 17),
    ],
)
def test_stems(stem, size, side):
    config = EncoderConfig(name="resnet18", stem=stem)
    encoder: Any = build_encoder(config, size, seed=0)
    assert before_stages(encoder, size) == (64, side, side)
    first = encoder.conv1
    if side >= size / 2:
        assert (first.kernel_size, first.padding, first.bias) == ((3, 3), (1, 1), None)
        # He's initialisation by the outgoing fan, as timm's own convolutions.
        std = (2 / (64 * 9)) ** 0.5
        assert first.weight.std().item() == pytest.approx(std, rel=0.1)
    else:
        assert (first.kernel_size, first.stride) == ((7, 7), (2, 2))


def test_auto_leaves_the_stem_of_other_models_alone():
    assert resolve(EncoderConfig(name="resnet50"), 32).stem == "small"
    for name in ("mobilenetv3_small_100", "resnet18d", "vit_tiny_patch16_224"):
        assert resolve(EncoderConfig(name=name), 32).stem == "standard", name
    kept = EncoderConfig(name="resnet18", stem="standard")
    resolved = resolve(kept, 32)
    assert (resolved.name, resolved.stem) == (kept.name, kept.stem)
    assert (resolved.depths, resolved.widths) == ((), ()), "the model's own"
    assert resolve(resolved, 32) == resolved


def test_resnet_small_has_four_basic_blocks():
    resolved = resolve(SMALL, 32)
    assert (resolved.depths, resolved.widths) == ((1, 1, 1, 1), (32, 64, 128, 256))
    assert resolve(resolved, 32) == resolved
    encoder: Any = build_encoder(SMALL, 32, seed=0)
    stages = [encoder.layer1, encoder.layer2, encoder.layer3, encoder.layer4]
    assert [len(stage) for stage in stages] == [1, 1, 1, 1]
    assert [stage[0].conv2.out_channels for stage in stages] == [32, 64, 128, 256]
    assert before_stages(encoder, 32) == (64, 32, 32)
    # 3×3 convolutions with BatchNorm, and a 1×1 shortcut where the stage changes the width.
    widths = [64, 32, 64, 128, 256]
    expected = 27 * 64 + 2 * 64
    for before, width in itertools.pairwise(widths):
        expected += 9 * before * width + 9 * width * width + 4 * width
        expected += before * width + 2 * width if before != width else 0
    assert sum(p.numel() for p in encoder.parameters()) == expected


def test_depths_and_widths_shape_any_resnet():
    config = EncoderConfig(name="resnet-small", depths=(1, 2, 1, 1), widths=(8, 16, 16, 24))
    encoder: Any = build_encoder(config, 32, seed=0)
    assert len(encoder.layer2) == 2
    assert encoder.num_features == 24
    bottleneck = EncoderConfig(name="resnet50", depths=(1, 1, 1, 1), widths=(8, 8, 8, 8))
    assert build_encoder(bottleneck, 32, seed=0).num_features == 32  # four times the inner width


@pytest.mark.parametrize(
    ("config", "size", "p"),
    [
        (EncoderConfig(name="resnet18"), 32, 512),
        (SMALL, 32, 256),
        (EncoderConfig(name="mobilenetv3_small_050"), 64, 1024),
        (EncoderConfig(name="test_vit"), 32, 64),
        (EncoderConfig(name="test_vit"), 64, 64),
        (EncoderConfig(name="vit_tiny_patch16_224"), 32, 192),
    ],
    ids=str,
)
def test_p_is_the_size_of_what_the_encoder_gives(config, size, p):
    encoder = build_encoder(config, size, seed=0).train()
    before = [buffer.clone() for buffer in encoder.buffers()]
    assert representation_size(encoder, config, size) == p
    assert encoder.training
    assert all(map(torch.equal, encoder.buffers(), before))
    with torch.no_grad():
        assert encoder.eval()(torch.rand(2, 3, size, size)).shape == (2, p)


@pytest.mark.parametrize("name", ["resnet-small", "test_vit"])
def test_weights_are_a_function_of_the_seed_and_the_global_generator_is_left_alone(name):
    config = EncoderConfig(name=name)
    before = torch.random.get_rng_state()
    one, same, other = (build_encoder(config, 32, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[key], same[key]) for key in one)
    matrices = [key for key in one if key.endswith("weight") and one[key].dim() > 1]
    assert len(matrices) > 5
    assert all(not torch.equal(one[key], other[key]) for key in matrices)


def test_an_unknown_name_is_an_error_that_names_the_nearest():
    with pytest.raises(UserError, match=r"--encoder must be a timm .* did you mean 'resnet18'\?"):
        build_encoder(EncoderConfig(name="resnet-18"), 32, seed=0)
    with pytest.raises(UserError, match="did you mean 'resnet-small'"):
        build_encoder(EncoderConfig(name="resnet_small"), 32, seed=0)


@pytest.mark.parametrize(
    "change",
    [
        {"depths": (1, 1, 1, 1)},
        {"widths": (8, 8, 8, 8)},
        {"stem": "small"},
        {"stem": "small-strided"},
    ],
    ids=str,
)
def test_settings_for_resnets_are_errors_elsewhere(change):
    config = dataclasses.replace(EncoderConfig(name="test_vit"), **change)
    with pytest.raises(
        UserError, match=r"are only for ResNets; got encoder 'test_vit'; leave them out"
    ):
        build_encoder(config, 32, seed=0)


def test_a_size_that_the_model_cannot_take_is_an_error():
    with pytest.raises(UserError, match=r"'test_vit' cannot take images of 8 px \(.+\); give"):
        build_encoder(EncoderConfig(name="test_vit"), 8, seed=0)


@pytest.mark.parametrize(
    "values", [{"depths": ()}, {"depths": (1, 1)}, {"widths": (8, 8, 8, 0)}], ids=str
)
def test_depths_and_widths_must_be_positive(values):
    with pytest.raises(UserError, match="must be four positive numbers"):
        EncoderConfig(**values)


def test_images_too_small_for_the_strides_are_noticed():
    config = EncoderConfig(name="resnet-small", stem="small-strided")
    encoder = build_encoder(config, 32, seed=0)
    # 32 px leave 16, 8, 4, 2; 8 px leave 4, 2, 1, and the last stride has one pixel.
    assert not strides_over_one_pixel(encoder, 32)
    assert strides_over_one_pixel(encoder, 8)
    assert encoder.training
