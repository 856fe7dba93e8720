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
        assert value.dtype == (torch.int64 if name == "texture_kind" else torch.float32), name


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
    counts = torch.bincount(factors["texture_kind"], minlength=len(TEXTURES))
    assert counts.min() > 300
    plain = factors["texture_kind"] == TEXTURES.index("plain")
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


def test_no_images_is_an_error():
    with pytest.raises(UserError, match="n=0"):
        make_shapes(0, 0)


def area_and_centroid(mask):
    """By counting samples inside, on a fine grid."""
    side = mask.shape[-1]
    line = torch.linspace(-shapes._REACH, shapes._REACH, side)
    cell = (line[1] - line[0]) ** 2
    area = mask.sum() * cell
    return area, (mask.sum(0) * line).sum() * cell / area, (mask.sum(1) * line).sum() * cell / area


@pytest.mark.parametrize("shape", SHAPES)
def test_every_silhouette_has_a_disc_s_area_and_its_centroid_at_the_origin(shape):
    inside = (shapes._templates()[SHAPES.index(shape)] < 0).float()
    area, x, y = area_and_centroid(inside)
    assert area == pytest.approx(math.pi, rel=0.02)
    assert abs(x) < 0.02
    assert abs(y) < 0.02


@pytest.mark.parametrize("shape", SHAPES)
def test_a_silhouette_has_the_symmetry_it_claims_and_no_more(shape):
    order = shapes._SYMMETRY[shape]
    template = shapes._templates()[SHAPES.index(shape)][None, None]

    def turned(angle):
        cos, sin = math.cos(angle), math.sin(angle)
        turn = torch.tensor([[[cos, -sin, 0.0], [sin, cos, 0.0]]])
        grid = F.affine_grid(turn, [1, 1, *template.shape[2:]], align_corners=True)
        moved = F.grid_sample(template, grid, padding_mode="border", align_corners=True)
        return ((moved < 0) != (template < 0)).float().sum() / (template < 0).float().sum()

    for angle in [0.3, 1.0, 2.0] if order == 0 else [2 * math.pi / order]:
        assert turned(angle) < 0.05
    if order > 0:  # half of the smallest turn that changes nothing does change it
        assert turned(math.pi / order) > 0.1


def test_position_moves_the_picture_by_whole_pixels(drawn):
    _, labels, factors = drawn
    labels, factors = labels[:50], {name: value[:50] for name, value in factors.items()}
    before = shapes._coverage(labels, factors)
    moved = factors | {"x_px": factors["x_px"] + 2, "y_px": factors["y_px"] - 3}
    after = shapes._coverage(labels, moved)
    torch.testing.assert_close(after[:, :-3, 2:], before[:, 3:, :-2], atol=1e-3, rtol=0)


def test_ink_lies_where_the_factors_say(drawn):
    _, labels, factors = drawn
    small = factors | {"size_px": factors["size_px"] * 0.7}  # none reaches the image's edge
    ink = shapes._coverage(labels, small)
    area = ink.sum((1, 2))
    torch.testing.assert_close(area, math.pi * small["size_px"] ** 2, rtol=0.03, atol=0)
    pixel = torch.arange(32) - 15.5
    x, y = (ink.sum(1) * pixel).sum(1) / area, (ink.sum(2) * pixel).sum(1) / area
    torch.testing.assert_close(x, factors["x_px"], atol=0.1, rtol=0)
    torch.testing.assert_close(y, factors["y_px"], atol=0.1, rtol=0)


def test_pixels_alone_do_not_tell_the_shape(drawn):
    images, labels, _ = drawn
    test_images, test_labels, _ = make_shapes(500, 1)
    x, y = images.flatten(1).float() / 255, test_images.flatten(1).float() / 255

    nearest = (F.normalize(y, dim=1) @ F.normalize(x, dim=1).T).topk(10).indices
    votes = F.one_hot(labels[nearest], len(SHAPES)).sum(1).argmax(1)
    assert (votes == test_labels).float().mean() < 0.45

    coarse, test_coarse = (
        F.avg_pool2d(i.float() / 255, 2).flatten(1) for i in (images, test_images)
    )
    probe = LogisticRegression(C=0.01, max_iter=500).fit(coarse.numpy(), labels.numpy())
    assert probe.score(test_coarse.numpy(), test_labels.numpy()) < 0.45
