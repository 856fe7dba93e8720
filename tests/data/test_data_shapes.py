import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from headwise.data import shapes
from headwise.data.shapes import RANGES, SHAPES, TEXTURES, make_shapes
from headwise.errors import UserError


@pytest.fixture(scope="module")
def drawn():
    return make_shapes(2000, 0)


def test_dtypes_and_shapes_are_as_promised(drawn):
    images, labels, factors = drawn
    assert (images.dtype, images.shape) == (torch.uint8, (2000, 3, 32, 32))
    assert (labels.dtype, labels.shape) == (torch.int64, (2000,))
    for name, value in factors.items():
        assert value.shape == (2000,), name
        assert value.dtype == (torch.int64 if name == "texture" else torch.float32), name


def test_the_seed_decides_everything(drawn):
    again, other = make_shapes(2000, 0), make_shapes(2000, 1)
    assert torch.equal(again[0], drawn[0])
    assert torch.equal(again[1], drawn[1])
    assert all(torch.equal(again[2][name], drawn[2][name]) for name in drawn[2])
    assert not torch.equal(other[0], drawn[0])
    assert not torch.equal(other[1], drawn[1])


@pytest.mark.parametrize("k", [1, 37, 501])
def test_the_first_images_do_not_depend_on_how_many_follow(drawn, k):
    images, labels, factors = make_shapes(k, 0)
    assert torch.equal(images, drawn[0][:k])
    assert torch.equal(labels, drawn[1][:k])
    assert all(torch.equal(factors[name], drawn[2][name][:k]) for name in factors)


def test_classes_are_balanced_and_shuffled(drawn):
    labels = drawn[1]
    assert torch.bincount(labels).tolist() == [200] * len(SHAPES)
    tens = labels.view(-1, len(SHAPES))
    assert len({tuple(ten.tolist()) for ten in tens}) > 150


def test_factors_lie_in_their_ranges_and_fill_them(drawn):
    factors = drawn[2]
    for name in ("x_px", "y_px", "size_px", "noise"):
        low, high = RANGES[name]
        value, margin = factors[name], 0.02 * (high - low)
        assert low <= value.min() < low + margin, name
        assert high - margin < value.max() <= high, name
    for name in ("rotation", "hue", "background_hue", "texture", "phase"):
        radius = torch.hypot(factors[f"{name}_sine"], factors[f"{name}_cosine"])
        torch.testing.assert_close(radius, torch.ones_like(radius))
    gap = (factors["lightness"] - factors["background_lightness"]).abs()
    assert RANGES["contrast"][0] - 1e-6 <= gap.min()
    assert gap.max() <= RANGES["contrast"][1] + 1e-6
    counts = torch.bincount(factors["texture"], minlength=len(TEXTURES))
    assert counts.min() > 300
    plain = factors["texture"] == TEXTURES.index("plain")
    assert factors["texture_contrast"][plain].eq(0).all()
    assert factors["texture_contrast"][~plain].min() >= RANGES["texture_contrast"][0]


def test_no_single_factor_tells_the_class(drawn):
    _, labels, factors = drawn
    for name, value in factors.items():
        if name.startswith("rotation"):  # circle and ring have none
            continue
        value = value.float()
        means = torch.stack([value[labels == c].mean() for c in range(len(SHAPES))])
        # 200 a class: a class's mean strays by 0.07 standard deviations; five times that is a leak
        assert (means - value.mean()).abs().max() < 0.35 * value.std(), name


def test_a_picture_is_its_label_and_factors_but_for_the_noise(drawn):
    images, labels, factors = drawn
    clean = shapes._render(labels, factors)
    away = (images.float() / 255 - clean.clamp(0, 1)).abs().flatten(1).amax(1)
    assert (away <= factors["noise"] + 0.5 / 255 + 1e-5).all()
    noisy = factors["noise"] > 0.01
    assert (away[noisy] > 0.8 * factors["noise"][noisy]).all()


def test_unequal_images_get_an_error():
    with pytest.raises(UserError, match="n=0"):
        make_shapes(0, 0)
