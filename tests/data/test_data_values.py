"""The same picture has the same 8-bit values in every mode, depth and container."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from headwise.data.decode import decode

GREY = np.array([[0, 17, 34, 51], [68, 102, 119, 136], [153, 187, 204, 255]], np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], 2)
ALPHA = np.full_like(GREY, 255)
ALPHA[0, 0] = 0  # over black: a clear pixel is white
SEEN = np.where(ALPHA[..., None] == 255, COLOUR, 255)
SEEN_GREY = np.where(ALPHA == 255, GREY, 255)


def wide(values: np.ndarray, order: str = "<") -> bytes:
    return (values.astype(np.uint16) * 257).astype(f"{order}u2").tobytes()


def tiff(
    samples: bytes, bits: tuple[int, ...], photometric: int, *, order="<", extra=None, kind=1
) -> bytes:
    """An uncompressed TIFF of one strip; `extra`: its ExtraSamples, `kind`: its SampleFormat."""
    height, width = GREY.shape
    n = len(bits)
    tags: list[tuple[int, int, tuple[int, ...]]] = [
        (256, 3, (width,)),
        (257, 3, (height,)),
        (258, 3, bits),
        (259, 3, (1,)),
        (262, 3, (photometric,)),
        (273, 4, (0,)),
        (277, 3, (n,)),
        (278, 3, (height,)),
        (279, 4, (len(samples),)),
        *([] if extra is None else [(338, 3, (extra,))]),
        *([] if kind == 1 else [(339, 3, (kind,) * n)]),
    ]
    start = 8 + 2 + 12 * len(tags) + 4
    tail = b""
    entries = b""
    for tag, form, values in tags:
        code = {3: "H", 4: "I"}[form]
        data = struct.pack(f"{order}{len(values)}{code}", *values)
        if tag == 273:
            data = struct.pack(f"{order}I", start + 64)
        if len(data) > 4:
            place = start + len(tail)
            tail += data
            data = struct.pack(f"{order}I", place)
        entries += struct.pack(f"{order}HHI", tag, form, len(values)) + data.ljust(4, b"\0")
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(f"{order}HIH", 42, 8, len(tags))
    return (head + entries + b"\0" * 4 + tail).ljust(start + 64, b"\0") + samples


def png(samples: bytes, depth: int, kind: int, row_bytes: int, transparent: bytes = b"") -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)

    height, width = GREY.shape
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    rows = [samples[i : i + row_bytes] for i in range(0, len(samples), row_bytes)]
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    colour = chunk(b"tRNS", transparent) if transparent else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + colour
        + chunk(b"IDAT", body)
        + chunk(b"IEND", b"")
    )


def saved(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def nibbles(values: np.ndarray) -> bytes:
    four = values // 17
    return (four[:, ::2] << 4 | four[:, 1::2]).astype(np.uint8).tobytes()


def twelve(values: np.ndarray) -> bytes:
    """Two values of 12 bits in three bytes; 255 becomes 4095."""
    wide_values = np.rint(values.astype(float) * 4095 / 255).astype(int).ravel()
    pairs = zip(wide_values[::2], wide_values[1::2], strict=True)
    return b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pairs)


RGBA = np.dstack([COLOUR, ALPHA])
GREYS = {
    "png 8": (saved(Image.fromarray(GREY), "PNG"), GREY),
    "png 4": (png(nibbles(GREY), 4, 0, 2), GREY),
    "png 16": (png(wide(GREY, ">"), 16, 0, 8), GREY),
    "png 8 + one clear value": (png(GREY.tobytes(), 8, 0, 4, b"\0\0"), SEEN_GREY),
    "png 4 + one clear value": (png(nibbles(GREY), 4, 0, 2, b"\0\0"), SEEN_GREY),
    "png 16 + one clear value": (png(wide(GREY, ">"), 16, 0, 8, b"\0\0"), SEEN_GREY),
    "png 8 + alpha": (saved(Image.fromarray(np.dstack([GREY, ALPHA])), "PNG"), SEEN_GREY),
    "png 16 + alpha": (png(wide(np.dstack([GREY, ALPHA]), ">"), 16, 4, 16), SEEN_GREY),
    "ppm 8": (saved(Image.fromarray(GREY), "PPM"), GREY),
    "ppm 16": (b"P5 4 3 65535 " + wide(GREY, ">"), GREY),
    "bmp": (saved(Image.fromarray(GREY), "BMP"), GREY),
    "gif": (saved(Image.fromarray(GREY), "GIF"), GREY),
    "tiff 4": (tiff(nibbles(GREY), (4,), 1), GREY),
    "tiff 8": (tiff(GREY.tobytes(), (8,), 1), GREY),
    "tiff 12": (tiff(twelve(GREY), (12,), 1), GREY),
    "tiff 16": (tiff(wide(GREY), (16,), 1), GREY),
    "tiff 16 big endian": (tiff(wide(GREY, ">"), (16,), 1, order=">"), GREY),
    "tiff float": (tiff((GREY / 255).astype("<f4").tobytes(), (32,), 1, kind=3), GREY),
    "tiff 4 white is zero": (tiff(nibbles(255 - GREY), (4,), 0), GREY),
    "tiff 8 white is zero": (tiff((255 - GREY).tobytes(), (8,), 0), GREY),
    "tiff 16 white is zero": (tiff(wide(255 - GREY), (16,), 0), GREY),
    "tiff float white is zero": (
        tiff((1 - GREY / 255).astype("<f4").tobytes(), (32,), 0, kind=3),
        GREY,
    ),
    "tiff 16 white is zero, compressed": (
        saved(
            Image.fromarray((255 - GREY).astype(np.uint16) * 257),
            "TIFF",
            compression="tiff_lzw",
            tiffinfo={262: 0},
        ),
        GREY,
    ),
    "tiff 8 + alpha": (tiff(np.dstack([GREY, ALPHA]).tobytes(), (8, 8), 1, extra=2), SEEN_GREY),
}
COLOURS = {
    "png 8": (saved(Image.fromarray(COLOUR), "PNG"), COLOUR),
    "png 16": (png(wide(COLOUR, ">"), 16, 2, 24), COLOUR),
    "png 8 + alpha": (saved(Image.fromarray(RGBA), "PNG"), SEEN),
    "png 16 + alpha": (png(wide(RGBA, ">"), 16, 6, 32), SEEN),
    "png 8 + one clear colour": (
        png(COLOUR.tobytes(), 8, 2, 12, struct.pack(">HHH", *COLOUR[0, 0])),
        SEEN,
    ),
    "png 16 + one clear colour": (
        png(wide(COLOUR, ">"), 16, 2, 24, struct.pack(">HHH", *(COLOUR[0, 0].astype(int) * 257))),
        SEEN,
    ),
    "ppm 8": (saved(Image.fromarray(COLOUR), "PPM"), COLOUR),
    "ppm 16": (b"P6 4 3 65535 " + wide(COLOUR, ">"), COLOUR),
    "bmp": (saved(Image.fromarray(COLOUR), "BMP"), COLOUR),
    "webp": (saved(Image.fromarray(COLOUR), "WEBP", lossless=True), COLOUR),
    "webp + alpha": (saved(Image.fromarray(RGBA), "WEBP", lossless=True, exact=True), SEEN),
    "tiff 8": (tiff(COLOUR.tobytes(), (8,) * 3, 2), COLOUR),
    "tiff 16": (tiff(wide(COLOUR), (16,) * 3, 2), COLOUR),
    "tiff 16 big endian": (tiff(wide(COLOUR, ">"), (16,) * 3, 2, order=">"), COLOUR),
    "tiff 8 + alpha": (tiff(RGBA.tobytes(), (8,) * 4, 2, extra=2), SEEN),
    "tiff 16 + alpha": (tiff(wide(RGBA), (16,) * 4, 2, extra=2), SEEN),
    "tiff 8 + premultiplied alpha": (
        tiff(np.where(ALPHA[..., None] == 255, RGBA, 0).tobytes(), (8,) * 4, 2, extra=1),
        SEEN,
    ),
    "tiff 8 + something": (tiff(RGBA.tobytes(), (8,) * 4, 2, extra=0), COLOUR),
    "tiff cmyk": (
        tiff(np.dstack([255 - COLOUR, np.zeros_like(GREY)]).tobytes(), (8,) * 4, 5),
        COLOUR,
    ),
}


@pytest.mark.parametrize("name", GREYS)
def test_grey(name):
    data, expected = GREYS[name]
    got = np.asarray(decode(io.BytesIO(data)))
    np.testing.assert_array_equal(got, np.repeat(expected[..., None], 3, 2))


@pytest.mark.parametrize("name", COLOURS)
def test_colour(name):
    data, expected = COLOURS[name]
    np.testing.assert_array_equal(np.asarray(decode(io.BytesIO(data))), expected)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "values", [[-3e38, 0, 3e38], [1e30] * 3, [np.inf, -np.inf, 0], [1e-45] * 3]
)
def test_extreme_floats_are_decoded_without_a_word(values):
    row = np.array([*values, 0] * 3, "<f4")
    picture = np.asarray(decode(io.BytesIO(tiff(row.tobytes(), (32,), 1, kind=3))))
    assert picture.shape == (3, 4, 3)
    if values[0] == -3e38:
        assert picture[0, :3, 0].tolist() == [0, 128, 255]
