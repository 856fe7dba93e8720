"""Features: the taps of encoder and head in one pass, and the hash of what must not change."""

import copy
import dataclasses
from typing import Any

import pytest
import torch
from narrow import labels_of, present
from resolved import resolved_augment
from torch import nn

from headwise.augment import whole_batches
from headwise.data import ResidentImages
from headwise.data.images import resident_images
from headwise.encoders.build import EncoderConfig, build_encoder
from headwise.encoders.convolution import replace_convolutions
from headwise.encoders.stages import stage_names
from headwise.errors import UserError
from headwise.features.extract import all_taps, at_taps, check_taps, extract, weights_hash
from headwise.heads import HeadConfig, build_head
from headwise.model.extraction import ExtractConfig

PLAIN = resolved_augment(size=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
HOW = ExtractConfig(augment=PLAIN, batch_size=5)
TINY = EncoderConfig(name="resnet-small", stem="small-strided", widths=(8, 8, 16, 16))


def encoder(name: str) -> nn.Module:
    config = TINY if name == "resnet-small" else EncoderConfig(name=name)
    return build_encoder(config, 32, seed=0).eval()


def photographs(n: int) -> ResidentImages:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (n, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return resident_images(pixels, torch.arange(n) % 3, ("a", "b", "c"), [str(i) for i in range(n)])


def pixels(n: int) -> torch.Tensor:
    (batch,) = whole_batches(photographs(n), PLAIN, batch_size=n, device="cpu", workers=0)
    return batch[1]


@pytest.mark.parametrize(
    ("name", "stages"),
    [("resnet-small", 4), ("test_convnext", 4), ("test_mambaout", 4), ("test_efficientnet", 5)],
)
def test_stages_are_the_means_of_timms_own_feature_maps(name, stages):
    """test_mambaout keeps its channels last."""
    model: Any = encoder(name)
    x = pixels(3)
    taps = stage_names(model)
    assert taps == tuple(f"f{i}" for i in range(1, stages + 1))
    with torch.no_grad():
        maps = model.forward_intermediates(x, intermediates_only=True, output_fmt="NCHW")[-stages:]
    found = at_taps(model, None, x, taps, HOW)
    for tap, expected in zip(taps, maps, strict=True):
        torch.testing.assert_close(found[tap], expected.mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_blocks_of_a_vision_transformer_are_the_means_of_their_tokens():
    model: Any = encoder("test_vit")
    x = pixels(3)
    taps = stage_names(model)
    assert len(taps) == len(model.blocks)
    with torch.no_grad():
        blocks = model.forward_intermediates(
            x, intermediates_only=True, output_fmt="NLC", return_prefix_tokens=True
        )
    found = at_taps(model, None, x, taps, HOW)
    for tap, (patches, prefix) in zip(taps, blocks, strict=True):
        expected = torch.cat([prefix, patches], 1).mean(1)
        torch.testing.assert_close(found[tap], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet-small", "test_vit", "test_mambaout"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_h_and_z_are_bit_for_bit_those_without_the_other_taps(name, precision):
    model, x = encoder(name), pixels(4)
    replace_convolutions(model)
    extraction = dataclasses.replace(HOW, precision=precision)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        h = model(x.contiguous(memory_format=torch.channels_last))
        head = build_head(HeadConfig(name="mlp", output_size=8), h.shape[1]).eval()
        z = head(h, views=1)
    taps = all_taps(model, head)
    assert taps == (*stage_names(model), "h", "g1", "z")
    found = at_taps(model, head, x, taps, extraction)
    assert torch.equal(found["h"], h.float())
    assert torch.equal(found["z"], z.float())
    assert all(values.dtype == torch.float32 for values in found.values())
    if name == "resnet-small":
        torch.testing.assert_close(found["f4"], found["h"], rtol=1e-2, atol=1e-3)


def test_nothing_stays_hooked_to_the_encoder_even_after_an_error():
    model = encoder("resnet-small")
    at_taps(model, None, pixels(2), ["f1", "f4"], HOW)
    model.layer3 = nn.Linear(3, 3)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        at_taps(model, None, pixels(2), ["f1", "f4"], HOW)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("taps", [["f5"], ["g9"], ["embedding"], ["f0", "h"]])
def test_an_unknown_tap_is_an_error_that_lists_all(taps):
    model: Any = encoder("resnet-small")
    head = build_head(HeadConfig(name="mlp"), model.num_features)
    with pytest.raises(UserError, match=r"f1, f2, f3, f4, h, g1, z; got '(f5|g9|embedding|f0)'"):
        check_taps(taps, model, head)
    with pytest.raises(UserError, match="f1, f2, f3, f4, h; got 'z'"):
        extract(model, None, photographs(3), ["z"], HOW)


def test_an_encoder_whose_stages_timm_does_not_list_has_h_alone():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
    assert all_taps(model, None) == ("h",)
    assert extract(model, None, photographs(3), ["h"], HOW)["h"].vectors.shape == (3, 4)


def test_a_stage_that_is_no_map_is_an_error():
    model: Any = encoder("resnet-small")
    model.feature_info[1]["num_chs"] = 9
    with pytest.raises(UserError, match=r"--taps f1 needs .* 9 channels .* \(2, 8, 16, 16\)"):
        at_taps(model, None, pixels(2), ["f1"], HOW)


def test_rows_are_the_images_in_their_order_and_labels_go_with_them():
    model, images = encoder("resnet-small"), photographs(13)
    found = extract(model.train(), None, images, ["h", "f2", "h"], HOW)
    assert model.training
    assert list(found) == ["h", "f2"]
    with torch.no_grad():
        expected = model.eval()(pixels(13))
    for features in found.values():
        assert torch.equal(features.index, torch.arange(13))
        assert torch.equal(present(features.labels), labels_of(images))
    torch.testing.assert_close(found["h"].vectors, expected, rtol=1e-5, atol=1e-6)


def test_the_hash_sees_every_bit_of_parameters_and_buffers():
    model = encoder("resnet-small")
    before = weights_hash(model)
    assert weights_hash(copy.deepcopy(model)) == before
    extract(model, None, photographs(6), ["f1", "h"], HOW)
    assert weights_hash(model) == before
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    assert any("running_mean" in name for name in tensors)
    for name, tensor in tensors.items():
        changed = copy.deepcopy(model)
        target = (dict(changed.named_parameters()) | dict(changed.named_buffers()))[name]
        with torch.no_grad():
            target.reshape(-1).view(torch.uint8)[-1] ^= 1
        assert weights_hash(changed) != before, name
        assert tensor.isfinite().all()


def test_the_hash_tells_zero_from_minus_zero_and_takes_any_type():
    layer = nn.Linear(2, 2, dtype=torch.bfloat16)
    nn.init.zeros_(layer.bias)
    before = weights_hash(layer)
    with torch.no_grad():
        layer.bias.neg_()
    assert weights_hash(layer) != before
    swapped = nn.ParameterDict({"a": torch.ones(2), "b": torch.zeros(2)})
    other = nn.ParameterDict({"a": torch.zeros(2), "b": torch.ones(2)})
    assert weights_hash(swapped) != weights_hash(other)
