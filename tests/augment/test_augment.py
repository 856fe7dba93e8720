"""Every operation against torchvision, image by image, with the same parameters."""

import pytest
import torch
import torchvision.transforms.v2.functional as tv
from hypothesis import given, settings
from hypothesis import strategies as st
from resolved import resolved_augment
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop

from headwise.augment import normalised, ops
from headwise.augment.crop import apply_crop, crop_boxes, sample_crop
from headwise.augment.ops import Blur

# Far inside the 2/255 that the eye would forgive.
CLOSE = {"rtol": 0, "atol": 2e-5}
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """uint8 noise, with grey pixels and areas of pure black, white and red among them."""
    pixels = torch.randint(256, (n, 3, height, width), generator=generator(seed))
    pixels[:, :, : height // 4] = pixels[:, :1, : height // 4]
    flat = torch.tensor([[0, 0, 0], [255, 255, 255], [255, 0, 0]])
    for column in range(3):
        pixels[:, :, -height // 4 :, column::4] = flat[column][:, None, None]
    return pixels.byte()


def floats(n: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    return pictures(n, height, width, seed).float() / 255


def one_by_one(images: torch.Tensor, function, *parameters: torch.Tensor) -> torch.Tensor:
    rows = zip(images, *(p.tolist() for p in parameters), strict=True)
    return torch.stack([function(image, *values) for image, *values in rows])


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(64, 64, 16), (12, 12, 32), (40, 24, 16), (24, 41, 32), (90, 17, 20), (32, 32, 32)],
    ids=str,
)
def test_crop(height, width, size):
    images = pictures(16, height, width)
    draws = sample_crop(16, generator(), scale=SCALE, ratio=RATIO)
    boxes = crop_boxes(draws, height, width, RATIO)
    boxes[:3] = torch.tensor(
        [[0, 0, height, width], [height - 1, width - 1, 1, 1], [0, width - 2, height, 2]]
    )

    def oracle(image, box):
        return tv.resized_crop(image, *box, size=[size, size], antialias=True)

    expected = one_by_one(images.float() / 255, oracle, boxes)
    torch.testing.assert_close(apply_crop(images, boxes, size), expected, **CLOSE)
    torch.testing.assert_close(apply_crop(images.float() / 255, boxes, size), expected, **CLOSE)


def test_crop_of_several_boxes_an_image_cuts_image_j_mod_n():
    images = pictures(5, 20, 30)
    boxes = crop_boxes(sample_crop(15, generator(), scale=SCALE, ratio=RATIO), 20, 30, RATIO)
    together = apply_crop(images, boxes, 16)
    alone = torch.cat([apply_crop(images, part, 16) for part in boxes.split(5)])
    torch.testing.assert_close(together, alone, **CLOSE)


@settings(deadline=None, max_examples=150)
@given(
    height=st.integers(1, 600),
    width=st.integers(1, 600),
    scale=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted).map(tuple),
    ratio=st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)).map(sorted).map(tuple),
    seed=st.integers(0, 99),
)
def test_crop_boxes_lie_inside_the_image(height, width, scale, ratio, seed):
    draws = sample_crop(8, generator(seed), scale=scale, ratio=ratio)
    top, left, heights, widths = crop_boxes(draws, height, width, ratio).unbind(1)
    assert (heights >= 1).all()
    assert (widths >= 1).all()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + heights <= height).all()
    assert (left + widths <= width).all()


@pytest.mark.parametrize(("height", "width"), [(400, 20), (20, 400), (60, 50)], ids=str)
def test_a_crop_that_never_fits_is_torchvisions_fallback(height, width):
    ratio = RATIO if height / width in (20, 1 / 20) else (0.9, 0.95)
    scale = (1.0, 1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        image = torch.zeros(3, height, width)
        expected = RandomResizedCrop.get_params(image, list(scale), list(ratio))
    draws = sample_crop(4, generator(), scale=scale, ratio=ratio)
    boxes = crop_boxes(draws, height, width, ratio)
    assert boxes.tolist() == [list(expected)] * 4


@pytest.mark.parametrize(("height", "width"), [(96, 96), (60, 200), (150, 70)], ids=str)
def test_crop_boxes_are_distributed_as_torchvisions(height, width):
    n = 3000
    draws = sample_crop(n, generator(3), scale=SCALE, ratio=RATIO)
    ours = crop_boxes(draws, height, width, RATIO).double()
    image = torch.zeros(3, height, width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        theirs = [RandomResizedCrop.get_params(image, list(SCALE), list(RATIO)) for _ in range(n)]
    theirs = torch.tensor(theirs).double()
    measures = {
        "area": lambda box: box[:, 2] * box[:, 3],
        "aspect": lambda box: box[:, 3] / box[:, 2],
        "top": lambda box: box[:, 0] / (height - box[:, 2] + 1),
        "left": lambda box: box[:, 1] / (width - box[:, 3] + 1),
    }
    for name, measure in measures.items():
        assert ks_2samp(measure(ours), measure(theirs)).pvalue > 0.01, name


def test_flip_mirrors_the_chosen_rows_alone():
    images, flipped = floats(6, 8, 10), torch.tensor([1, 0, 0, 1, 1, 0]).bool()
    expected = one_by_one(
        images, lambda image, flip: tv.horizontal_flip(image) if flip else image, flipped
    )
    assert torch.equal(ops.apply_flip(images, flipped), expected)


@pytest.mark.parametrize(
    ("ours", "theirs", "factors"),
    [
        (ops.adjust_brightness, tv.adjust_brightness, (0.0, 0.2, 1.0, 1.8)),
        (ops.adjust_contrast, tv.adjust_contrast, (0.0, 0.2, 1.0, 1.8)),
        (ops.adjust_saturation, tv.adjust_saturation, (0.0, 0.2, 1.0, 1.8)),
        (ops.adjust_hue, tv.adjust_hue, (-0.5, -0.13, 0.0, 0.2)),
    ],
    ids=["brightness", "contrast", "saturation", "hue"],
)
def test_colour(ours, theirs, factors):
    images, factors = floats(4, 16, 12), torch.tensor(factors)
    expected = one_by_one(images, theirs, factors)
    torch.testing.assert_close(ours(images, factors), expected, **CLOSE)


def test_jitter_is_the_four_in_each_rows_order_clipped_after_each():
    n = 48
    images = floats(n, 9, 11)
    jitter = ops.sample_jitter(n, generator(), probability=0.7, strengths=(0.8, 0.8, 0.8, 0.2))
    adjust = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)

    def oracle(image, factors, order, applied):
        for kind in order if applied else ():
            image = adjust[kind](image, factors[kind]).clamp(0, 1)
        return image

    before = images.clone()
    jittered = ops.apply_jitter(images, jitter)
    expected = one_by_one(images, oracle, *jitter)
    torch.testing.assert_close(jittered, expected, **CLOSE)
    assert torch.equal(images, before)
    assert len(set(map(tuple, jitter.order.tolist()))) > 12  # of 24 orders
    assert jitter.order.sort(1).values.tolist() == [[0, 1, 2, 3]] * n


def test_jitter_factors_fill_their_ranges_uniformly():
    n = 4000
    jitter = ops.sample_jitter(n, generator(1), probability=1.0, strengths=(1.6, 0.4, 0.5, 0.1))
    ranges = [(0.0, 2.6), (0.6, 1.4), (0.5, 1.5), (-0.1, 0.1)]
    for factors, (low, high) in zip(jitter.factors.T, ranges, strict=True):
        assert low <= factors.min() < factors.max() <= high
        uniform = low + (high - low) * torch.rand(n, generator=generator(2))
        assert ks_2samp(factors, uniform).pvalue > 0.01


def test_grey_is_torchvisions_on_the_chosen_rows():
    images, grey = floats(6, 8, 8), torch.tensor([1, 0, 1, 1, 0, 0]).bool()
    expected = one_by_one(
        images, lambda image, on: tv.rgb_to_grayscale(image, 3) if on else image, grey
    )
    torch.testing.assert_close(ops.apply_grey(images, grey), expected, **CLOSE)


@pytest.mark.parametrize("side", [8, 32, 64, 160])
def test_blur(side):
    sigma = torch.tensor([0.1, 0.5, 1.0, 2.0, 1.5])
    applied = torch.tensor([1, 1, 1, 1, 0]).bool()
    images, kernel = floats(5, side, side), ops.kernel_px(side)

    def oracle(image, sigma, on):
        return tv.gaussian_blur(image, [kernel, kernel], [sigma, sigma]) if on else image

    expected = one_by_one(images, oracle, sigma, applied)
    torch.testing.assert_close(ops.apply_blur(images, Blur(sigma, applied)), expected, **CLOSE)
    assert kernel % 2 == 1
    assert abs(kernel - side / 10) <= max(1, 3 - side / 10)


def test_normalise_is_torchvisions():
    images, mean, std = floats(3, 8, 8), (0.1, 0.5, 0.7), (0.2, 0.3, 0.4)
    expected = tv.normalize(images, list(mean), list(std))
    config = resolved_augment(size=8, mean=mean, std=std)
    torch.testing.assert_close(normalised(images, config), expected, **CLOSE)
