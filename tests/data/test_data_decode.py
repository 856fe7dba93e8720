"""Whatever a file holds becomes the picture a person would see."""

import io
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from headwise.data.decode import decode, header_size, quiet, square

RAMP = np.arange(0, 256, 16, dtype=np.uint8).reshape(4, 4)


def encoded(image: Image.Image, form: str = "PNG", **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, form, **options)
    file.seek(0)
    return file


def pixels(file: io.BytesIO, resize: int | None = None) -> np.ndarray:
    image = decode(file, resize)
    assert image.mode == "RGB"
    return np.asarray(image)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "GIF"])
def test_grey_is_repeated_in_three_channels(form):
    options = {"lossless": True} if form == "WEBP" else {}
    image = Image.fromarray(RAMP).convert("RGB" if form == "WEBP" else "L")
    np.testing.assert_array_equal(pixels(encoded(image, form, **options)), grey(RAMP))


def test_one_bit():
    image = Image.fromarray(np.eye(4, dtype=np.uint8) * 255).convert("1")
    np.testing.assert_array_equal(pixels(encoded(image)), grey(np.eye(4, dtype=np.uint8) * 255))


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(form):
    values = np.array([[0, 257, 300], [32896, 65278, 65535]], np.uint16)
    got = pixels(encoded(Image.fromarray(values), form))
    np.testing.assert_array_equal(got, grey(np.array([[0, 1, 1], [128, 254, 255]], np.uint8)))


def test_sixteen_bits_big_endian_tiff():
    image = Image.frombytes("I;16B", (2, 1), struct.pack(">HH", 257, 65535))
    np.testing.assert_array_equal(pixels(encoded(image, "TIFF"))[0, :, 0], [1, 255])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([-10.0, 0.0, 10.0], [0, 128, 255]),
        ([float("nan"), 0.0, 1.0], [0, 0, 255]),
        ([7.0, 7.0, 7.0], [0, 0, 0]),
    ],
)
def test_float_tiff(values, expected):
    image = Image.fromarray(np.array([values], np.float32))
    np.testing.assert_array_equal(pixels(encoded(image, "TIFF"))[0, :, 0], expected)


def test_wide_integers_are_stretched():
    image = Image.fromarray(np.array([[0, 50_000, 100_000]], np.int32))
    np.testing.assert_array_equal(pixels(encoded(image, "TIFF"))[0, :, 0], [0, 128, 255])


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_white_and_not_the_hidden_black(mode):
    values = np.zeros((1, 3, 4 if mode == "RGBA" else 2), np.uint8)
    values[0, :, -1] = [0, 128, 255]  # black everywhere: clear, half, opaque
    got = pixels(encoded(Image.fromarray(values, mode)))
    np.testing.assert_allclose(got.astype(int), grey(np.array([[255, 127, 0]])), atol=1)


def test_palette_with_transparency():
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    opaque = pixels(encoded(image))
    np.testing.assert_array_equal(opaque[0], [[0, 0, 0], [255, 0, 0], [0, 0, 255]])
    for transparency in (0, b"\x00\xff\xff"):
        got = pixels(encoded(image, transparency=transparency))
        np.testing.assert_array_equal(got[0], [[255, 255, 255], [255, 0, 0], [0, 0, 255]])


def test_transparent_colour_without_alpha_channel():
    image = Image.fromarray(np.array([[[0, 0, 0], [9, 9, 9]]], np.uint8))
    got = pixels(encoded(image, transparency=(0, 0, 0)))
    np.testing.assert_array_equal(got[0], [[255] * 3, [9] * 3])


def test_cmyk():
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[..., 0] = 255  # cyan alone: no red
    got = pixels(encoded(Image.fromarray(ink, "CMYK"), "JPEG", quality=100))
    np.testing.assert_allclose(got[4, 4].astype(int), [0, 255, 255], atol=3)


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for form in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if form == "WEBP" else {}
        file = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
        np.testing.assert_array_equal(pixels(file)[0, 0], [255, 0, 0])


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(form, orientation):
    """Oracle: EXIF's own table, as what the stored first row and first column are of the scene."""
    scene = np.zeros((16, 24, 3), np.uint8)
    scene[:8, :8], scene[:8, 16:], scene[8:, :8] = [255, 0, 0], [0, 255, 0], [0, 0, 255]
    store = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: a.transpose(1, 0, 2)[::-1],
        7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    }
    stored = Image.fromarray(np.ascontiguousarray(store[orientation](scene)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    got = pixels(encoded(stored, form, exif=exif, **options.get(form, {})))
    np.testing.assert_allclose(got.astype(int), scene, atol=4)


def test_damaged_exif_does_not_spoil_the_picture():
    file = encoded(Image.fromarray(RAMP), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff nonsense")
    np.testing.assert_array_equal(pixels(file), grey(RAMP))


def test_resize_is_short_side_then_centre_crop():
    scene = np.random.default_rng(0).integers(0, 256, (8, 24, 3), np.uint8)
    wide, tall = Image.fromarray(scene), Image.fromarray(scene).transpose(Image.Transpose.ROTATE_90)
    np.testing.assert_array_equal(pixels(encoded(wide), 8), scene[:, 8:16])
    for image, size, box in ((wide, (12, 4), (4, 0, 8, 4)), (tall, (4, 12), (0, 4, 4, 8))):
        expected = image.resize(size, Image.Resampling.BICUBIC).crop(box)
        np.testing.assert_array_equal(pixels(encoded(image), 4), np.asarray(expected))


def test_resize_of_a_large_jpeg_is_that_of_its_pixels():
    """The shortcut that decodes a JPEG at a fraction of its size does not show."""
    y, x = np.mgrid[0:512, 0:512]
    scene = np.stack([128 + 100 * np.sin(x / 40), 128 + 100 * np.cos(y / 50), x / 2], axis=2)
    image = Image.fromarray(scene.astype(np.uint8))
    got = pixels(encoded(image, "JPEG", quality=95), 32)
    np.testing.assert_allclose(got.astype(int), np.asarray(square(image, 32)).astype(int), atol=4)


def bomb() -> io.BytesIO:
    """A PNG of a few bytes that claims 60,000 × 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + body)


def truncated(form: str) -> io.BytesIO:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), form).getvalue()
    return io.BytesIO(data[: len(data) // 2])


@pytest.mark.parametrize(
    "file",
    [
        bomb(),
        *(truncated(form) for form in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")),
        io.BytesIO(b""),
        io.BytesIO(b"not an image"),
        io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"\xff" * 40),
    ],
)
def test_bad_files_are_one_line_os_errors(file):
    with pytest.raises(OSError, match=r"^[^\n]+$"):
        decode(file)


def test_header_check():
    header_size(encoded(Image.fromarray(RAMP)))
    with pytest.raises(OSError, match="known format"):
        header_size(io.BytesIO(b"not an image"))


def test_pillow_warnings_do_not_leak(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12)  # 16 pixels are suspicious, not forbidden
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(encoded(Image.fromarray(RAMP)))
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(RAMP))), grey(RAMP))


def test_warning_filters_are_restored_when_threads_overlap():
    before = list(warnings.filters)
    inside, leave = threading.Event(), threading.Event()

    def stay():
        with quiet():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=stay)
    with quiet():
        thread.start()
        inside.wait(10)
    assert warnings.filters != before  # the other thread is still inside
    leave.set()
    thread.join()
    assert warnings.filters == before
