"""Views in C: the same as in torch, which other tests hold to torchvision; and distributed as
torchvision's."""

import dataclasses
from typing import Any

import pytest
import torch
from narrow import present
from resolved import resolved_augment
from scipy.stats import ks_2samp
from torchvision.transforms import v2

from headwise.augment import ResolvedAugment
from headwise.augment.crop import apply_crop, crop_boxes
from headwise.augment.ops import Blur, apply_blur
from headwise.augment.views import ViewParameters, finish_views, make_views, sample_views
from headwise.augment.views_in_c import library, views_in_c
from headwise.runtime import hardware

compiled = pytest.mark.skipif(library() is None, reason="the C code is not compiled here")

EVERYTHING = resolved_augment(
    strength=1.0,
    colour=(0.8, 0.8, 0.8, 0.5),
    blur=0.5,
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.25, 0.3),
)
ONE_ALONE = {
    "flip": {"flip": 1.0},
    "jitter": {"jitter": 1.0},
    "grey": {"grey": 1.0},
    "blur": {"blur": 1.0},
    "none": {},
}


def test_every_operation_is_compared_alone() -> None:
    in_torch = {"cutout", "turns", "noise", "sobel", "own"}
    assert {*ONE_ALONE, "crop", "second"} | in_torch == {*ViewParameters._fields, "none"}


def pictures(n: int, side: int) -> torch.Tensor:
    """Noise, with grey rows, black, white, red and slow slopes among it."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (n, 3, side, side), generator=generator)
    pixels[:, :, : side // 4] = pixels[:, :1, : side // 4]
    pixels[:, 0, -side // 4 :] = torch.linspace(0, 255, side).long()
    pixels[1::4] = pixels[1::4, :, :1, :1]
    pixels[2::4, :, :, : side // 2] = torch.tensor([255, 0, 0])[:, None, None]
    pixels[3::4, :, : side // 2] = 0
    return pixels.byte()


def both_ways(
    config: ResolvedAugment, height: int, width: int, n: int = 20
) -> tuple[torch.Tensor, torch.Tensor]:
    """Views in C, and by the torch operations, the crop in float64."""
    images, drawn = pictures(n, max(height, width)), sample_views(config, n, seed=1, step=2)
    images = images[:, :, :height, -width:].contiguous()
    boxes = crop_boxes(drawn.crop, height, width, config.crop_ratio)
    boxes[:4] = torch.tensor(
        [
            [0, 0, height, width],
            [height - 1, width - 1, 1, 1],
            [0, width - 2, height, 2],
            [height - 3, 0, 3, width],
        ]
    )
    exact = apply_crop(images.double() / 255, boxes, present(config.size)).float()
    return make_views(config, images, boxes, drawn), finish_views(config, exact, drawn)


@compiled
@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (17, 17, 8),
        (40, 40, 31),
        (32, 32, 32),
        (20, 90, 32),
        (300, 19, 16),
        (109, 109, 100),
        (150, 200, 160),
        (400, 300, 160),
    ],
    ids=str,
)
def test_c_is_torch(height, width, size):
    ours, in_torch = both_ways(dataclasses.replace(EVERYTHING, size=size), height, width)
    torch.testing.assert_close(ours, in_torch, rtol=0, atol=3e-5)
    assert ours.is_contiguous(memory_format=torch.channels_last)


@compiled
@pytest.mark.parametrize("operation", ONE_ALONE)
def test_c_is_torch_operation_by_operation(operation):
    nothing: dict[str, Any] = dict.fromkeys(("flip", "jitter", "grey", "blur"), 0.0)
    config = dataclasses.replace(EVERYTHING, size=33, **(nothing | ONE_ALONE[operation]))
    ours, in_torch = both_ways(config, 40, 33)
    torch.testing.assert_close(ours, in_torch, rtol=0, atol=3e-5)


@compiled
@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_smallest_views_are_blurred_within_their_pixels(size):
    n = 12
    images, drawn = pictures(n, 5), sample_views(EVERYTHING, n // 2, seed=3, step=0)
    blur = Blur(sigma=torch.full((n,), 1.5), applied=torch.ones(n, dtype=torch.bool))
    boxes = crop_boxes(drawn.crop, 5, 5, EVERYTHING.crop_ratio)
    still = drawn.jitter._replace(applied=torch.zeros(n, dtype=torch.bool))
    views = torch.empty(n, 3, size, size, memory_format=torch.channels_last)
    no = torch.zeros(n, dtype=torch.bool)
    views_in_c(
        images,
        boxes,
        flipped=no,
        jitter=still,
        grey=no,
        blur=blur,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        views=views,
    )
    exact = apply_blur(apply_crop(images.double() / 255, boxes, size).float(), blur)
    torch.testing.assert_close(views, exact, rtol=0, atol=3e-5)


@pytest.mark.parametrize("in_c", [True, False])
@pytest.mark.parametrize("threads", [1, 3])
def test_views_do_not_depend_on_the_number_of_threads(in_c, threads):
    config = dataclasses.replace(EVERYTHING, size=64, in_c=in_c)
    images, drawn = pictures(40, 64), sample_views(config, 40, seed=0, step=0)
    boxes = crop_boxes(drawn.crop, 64, 64, config.crop_ratio)
    views = make_views(config, images, boxes, drawn)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.testing.assert_close(make_views(config, images, boxes, drawn), views)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_on_threads_calls_for_every_slice_and_raises_what_is_raised():
    seen = []
    slices = [slice(i, i + 1) for i in range(9)]
    hardware.on_threads(lambda rows: seen.append(rows.start), slices)
    assert sorted(seen) == list(range(9))

    def fail(rows: slice) -> None:
        raise ValueError(f"row {rows.start}")

    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="row 0"):
        hardware.on_threads(fail, slices)
    assert torch.get_num_threads() == before


def test_crops_that_are_cut_already_get_the_same_views_as_resident_images():
    config = dataclasses.replace(EVERYTHING, size=24)
    images, drawn = pictures(7, 40), sample_views(config, 7, seed=0, step=0)
    boxes = crop_boxes(drawn.crop, 40, 40, config.crop_ratio)
    crops = torch.cat([apply_crop(images, part, 24) for part in boxes.split(7)])
    cut = (crops * 255).round().byte()
    expected = finish_views(config, cut.float() / 255, drawn)
    torch.testing.assert_close(make_views(config, cut, None, drawn), expected, rtol=0, atol=3e-5)


def test_views_are_distributed_as_torchvisions():
    """A photograph-like image through SimCLR's policy here and in torchvision, 1,200 times each:
    brightness, contrast, colourfulness, red against blue and sharpness agree in distribution."""
    n, size = 600, 48
    generator = torch.Generator().manual_seed(3)
    image = torch.rand(1, 3, 6, 6, generator=generator)
    image = torch.nn.functional.interpolate(image, size=(96, 96), mode="bicubic").clamp(0, 1)
    image = (0.8 * image + 0.2 * torch.rand(1, 3, 96, 96, generator=generator)) * 255
    image = image.byte()
    config = resolved_augment(size=size, strength=1.0, blur=0.5)
    drawn = sample_views(config, n, seed=5, step=0)
    boxes = crop_boxes(drawn.crop, 96, 96, config.crop_ratio)
    ours = make_views(config, image.expand(n, -1, -1, -1).contiguous(), boxes, drawn)
    policy = v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomResizedCrop(size, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(5, (0.1, 2.0))], 0.5),
        ]
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        theirs = torch.stack([policy(image[0]) for _ in range(2 * n)])
    measures = {
        "brightness": lambda x: x.mean((1, 2, 3)),
        "contrast": lambda x: x.mean(1).std((1, 2)),
        "colourfulness": lambda x: x.std(1).mean((1, 2)),
        "red against blue": lambda x: (x[:, 0] - x[:, 2]).mean((1, 2)),
        "sharpness": lambda x: x.diff(dim=-1).abs().mean((1, 2, 3)),
        "left against right": lambda x: (x[..., : size // 2] - x[..., size // 2 :]).mean((1, 2, 3)),
    }
    for name, measure in measures.items():
        assert ks_2samp(measure(ours), measure(theirs)).pvalue > 0.01, name
