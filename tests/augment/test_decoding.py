"""Crops of files: the pixels that decoding everything and cutting would give."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from resolved import resolved_augment

from headwise import rng
from headwise.augment import batches, view_batches
from headwise.augment.crop import crop_boxes, sample_crop
from headwise.augment.decoding import _box, _cut, read_crops
from headwise.data import DataConfig, ImageFiles, open_images
from headwise.data.decode import decode, open_image

RATIO = (3 / 4, 4 / 3)


def scene(height: int, width: int, seed: int = 0) -> Image.Image:
    """Like a photograph: most of its detail is coarse, some is fine."""
    noise = np.random.default_rng(seed).normal(0, 1, (height, width, 3))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    pixels = np.fft.ifft2(
        np.fft.fft2(noise, axes=(0, 1)) / (frequency + 0.003)[..., None], axes=(0, 1)
    )
    pixels = 128 + 45 * pixels.real / pixels.real.std()
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, form: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def exact(data: bytes, box: tuple[int, int, int, int], size: int) -> np.ndarray:
    """Oracle: Pillow decodes all, cuts the box, resizes it."""
    top, left, height, width = box
    cut = decode(io.BytesIO(data)).crop((left, top, left + width, top + height))
    return np.asarray(cut.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)


def difference(data: bytes, boxes: list[tuple[int, int, int, int]], size: int) -> np.ndarray:
    """Absolute difference to the oracle."""
    views = _cut(open_image(data), boxes, size).numpy().astype(int)
    return np.abs(views - np.stack([exact(data, box, size) for box in boxes]))


KINDS = {
    "colour": ("RGB", "JPEG", {"quality": 90}),
    "full chroma": ("RGB", "JPEG", {"subsampling": 0}),
    "progressive": ("RGB", "JPEG", {"progressive": True}),
    "RGB inside": ("RGB", "JPEG", {"keep_rgb": True}),
    "grey": ("L", "JPEG", {}),
    "CMYK": ("CMYK", "JPEG", {}),
    "PNG": ("RGB", "PNG", {}),
    "alpha": ("RGBA", "PNG", {}),
    "WebP": ("RGB", "WEBP", {"lossless": True}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_small_images_are_decoded_to_the_pixels_of_pillow(kind):
    mode, form, options = KINDS[kind]
    data = encoded(scene(61, 83).convert(mode), form, **options)
    image = open_image(data)
    assert (image.height, image.width) == (61, 83)
    pixels = np.asarray(decode(io.BytesIO(data))).transpose(2, 0, 1)
    np.testing.assert_array_equal(image.pixels(), pixels)
    # Two ways to resize differ by their rounding.
    assert difference(data, [(3, 5, 50, 40), (0, 0, 61, 83), (60, 82, 1, 1)], 24).max() <= 2
    assert difference(data, [(10, 20, 7, 9), (60, 0, 1, 83)], 64).max() <= 2


def test_one_pixel():
    assert difference(encoded(scene(1, 1), "PNG"), [(0, 0, 1, 1)], 16).max() == 0


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_boxes_are_of_the_upright_picture(orientation, form):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(scene(600, 400), form, exif=exif)
    assert difference(data, [(1, 2, 90, 70), (5, 9, 33, 44)], 24).max() <= 2
    assert difference(data, [(51, 32, 333, 309), (0, 0, 400, 400)], 48).mean() < 2


@pytest.mark.parametrize(("side", "expected"), [(1600, 8), (1599, 4), (400, 2), (399, 1), (90, 1)])
def test_a_jpeg_is_shrunk_as_far_as_the_smallest_box_allows(monkeypatch, side, expected):
    data = encoded(scene(1600, 1600).convert("L"))
    shrinks = []
    real = type(open_image(data)).pixels

    def pixels(image, shrink):
        shrinks.append(shrink)
        return real(image, shrink)

    monkeypatch.setattr(type(open_image(data)), "pixels", pixels)
    _cut(open_image(data), [(0, 0, 1600, 1600), (0, 0, side, 1600)], 100)
    assert shrinks == [expected]


@pytest.mark.parametrize("size", [16, 32, 64])
def test_shrinking_while_decoding_hardly_shows(size):
    data = encoded(scene(701, 1003), quality=92)
    boxes = [(11, 21, 640, 700), (101, 303, 555, 500)]
    assert open_image(data).pixels(2).shape == (3, 351, 502)
    views = torch.from_numpy(np.stack([exact(data, box, size) for box in boxes])).float()
    shifted = (views[..., 1:] - views[..., :-1]).abs().mean() / 2
    difference_mean = difference(data, boxes, size).mean()
    assert 0 < difference_mean < 4
    assert difference_mean < shifted / 3, "far less than half a pixel's shift"


@pytest.mark.parametrize("shrink", [1, 4])
def test_a_truncated_jpeg_is_an_error_and_not_grey(shrink):
    data = encoded(scene(400, 400))
    for end in (len(data) // 2, len(data) - 100, len(data) - 2):
        image = open_image(data[:end])
        with pytest.raises(OSError, match="truncated"):
            image.pixels(shrink)


@given(
    height=st.integers(1, 900),
    width=st.integers(1, 900),
    seed=st.integers(0, 99),
    scale=st.sampled_from([(0.08, 1.0), (0.9, 1.0), (1e-6, 1e-3)]),
    ratio=st.sampled_from([RATIO, (1.0, 1.0), (3.0, 5.0)]),
)
def test_boxes_are_those_of_crop_boxes(height, width, seed, scale, ratio):
    draws = sample_crop(20, rng.generator(seed), scale=scale, ratio=ratio)
    expected = crop_boxes(draws, height, width, ratio)
    assert [_box(tries, height, width, ratio) for tries in draws.tolist()] == [
        tuple(box) for box in expected.tolist()
    ]


def test_real_photographs(tmp_path):
    """Views at a size where many photographs are shrunk: like those that are not."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    archive = Path(os.environ.get("HEADWISE_DATA") or beside) / "imagenet_sample_100_orig.zip"
    if not archive.exists():
        pytest.skip(f"{archive.name} not present")
    with zipfile.ZipFile(archive) as file:
        for name in sorted(file.namelist())[:30]:
            if name.endswith("JPEG"):
                (tmp_path / Path(name).name).write_bytes(file.read(name))
    images = open_images(DataConfig(spec=str(tmp_path), cache=False)).train
    assert isinstance(images, ImageFiles)
    n = len(images)
    draws = sample_crop(2 * n, rng.generator(0), scale=(0.08, 1.0), ratio=RATIO)
    for size, most in ((224, 0.1), (64, 1.0)):
        views, _, skipped = read_crops(images, torch.arange(n), draws, size, RATIO)
        assert skipped == []
        apart = []
        for i in range(2 * n):
            with images.open(i % n) as image:
                box = _box(draws[i].tolist(), image.height, image.width, RATIO)
            data = (tmp_path / images.ids[i % n]).read_bytes()
            apart.append(np.abs(views[i].numpy().astype(int) - exact(data, box, size)).mean())
        assert 0 < np.mean(apart) < most


@pytest.mark.parametrize("workers", [0, 2])
def test_views_do_not_depend_on_parts_and_workers(tmp_path, monkeypatch, workers):
    for i in range(13):
        scene(40 + i, 60, seed=i).save(tmp_path / f"{i:02}.jpg")
    (tmp_path / "05.jpg").write_bytes((tmp_path / "05.jpg").read_bytes()[:-300])
    data = DataConfig(spec=str(tmp_path), cache=False, max_bad_fraction=0.1)
    images = open_images(data).train
    config = resolved_augment(size=16, strength=1.0, blur=0.5, mean=(0.5,) * 3, std=(0.2,) * 3)

    def made(part: int, workers: int) -> list:
        monkeypatch.setattr(batches, "PART", part)
        options = {"batch_size": 11, "steps": range(3), "seed": 0, "device": "cpu"}
        return list(view_batches(images, config, **options, workers=workers))

    whole, parts = made(32, 0), made(4, workers)
    assert len(whole) == len(parts) == 3
    assert {id for views in whole for id, _ in views.unreadable} == {"05.jpg"}
    for views, again in zip(whole, parts, strict=True):
        assert torch.equal(views.pixels, again.pixels)
        assert torch.equal(views.shown, again.shown)
        assert views.unreadable == again.unreadable
