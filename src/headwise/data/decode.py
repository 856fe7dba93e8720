"""Decode any image file to an upright 8-bit RGB picture.

Transparent pixels are composited over white, since their stored colour (often black) is hidden.
16-bit values are scaled by 1/257 and never clipped. Of an animation, the first frame is used.
"""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from headwise.data.config import Fit
from headwise.data.quiet import quiet
from headwise.data.reading import line_of
from headwise.errors import UserError, nearest

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM")
"""The formats of files that Pillow may open. Others, such as EPS, start programs."""
PHOTOMETRIC_TAG = 0x0106
WHITE_IS_ZERO = 0
DEPTH_TAG = 0x0102
LARGEST_SIDE = 4096
"""Of a padded or stretched image, in pixels: a thin image would make a huge square."""
PADDING = (128, 128, 128)
LARGE_SPAN = 1e38
"""Differences of float32 values above this may overflow."""
ORIENTATION_TAG = 0x0112
# The operation that turns each stored orientation upright (EXIF 2.32, table 4.6.4 A).
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class LazyImage:
    """An image of known size. A JPEG is not yet decoded; other formats are."""

    height: int
    """Height and width are those of the upright picture."""
    width: int
    jpeg: bytes
    """The bytes of a JPEG file; empty if `decoded` is set."""
    plain: bool
    """Whether the JPEG is grey or RGB and stored upright."""
    decoded: UInt8[Tensor, "3 h w"] | None

    def pixels(self, shrink: int = 1) -> UInt8[Tensor, "3 _ _"]:
        """Return the picture that `decode` returns, for a JPEG at 1/`shrink` (2, 4 or 8) of its
        size. Raises `OSError` as `decode` does."""
        if self.decoded is not None:
            return self.decoded
        if self.plain and shrink == 1:
            from torchvision.io import ImageReadMode, decode_jpeg

            # Faster, with the same pixels. If it fails, Pillow decodes the file or says why not.
            with contextlib.suppress(RuntimeError):
                data = torch.frombuffer(bytearray(self.jpeg), dtype=torch.uint8)
                return torch.as_tensor(decode_jpeg(data, ImageReadMode.RGB))
        return _tensor(decode(io.BytesIO(self.jpeg), shrink=shrink))


def open_image(data: bytes, resize: int | None = None, fit: Fit = "crop") -> LazyImage:
    """Return the image in the bytes of a file. Other arguments and errors are as in `decode`."""
    if resize is None and fit == "crop":
        with _pillow(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.format in ("JPEG", "MPO"):
                orientation = _orientation(image)
                width, height = image.size if orientation < 5 else image.size[::-1]
                upright = image.format == "JPEG" and orientation not in UPRIGHT
                return LazyImage(height, width, data, upright and image.mode in ("L", "RGB"), None)
    pixels = _tensor(decode(io.BytesIO(data), resize, fit=fit))
    return LazyImage(pixels.shape[1], pixels.shape[2], b"", False, pixels)


def _tensor(picture: Image.Image) -> UInt8[Tensor, "3 h w"]:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def decode(
    file: io.BufferedIOBase, resize: int | None = None, shrink: int = 1, fit: Fit = "crop"
) -> Image.Image:
    """Return the picture in `file` as RGB, turned upright by its EXIF orientation, and made a
    square as `fitted` does. A JPEG without `resize` has 1/`shrink` (2, 4 or 8) of its size.

    Raises `OSError` with a reason of one line if the file cannot be decoded completely: it is
    damaged, truncated, not an image, or so large that Pillow reports a decompression bomb.
    """
    with _pillow(), Image.open(file, formats=FORMATS) as image:  # type: ignore[arg-type]
        if shrink > 1 and resize is None:
            image.draft(None, (image.width // shrink, image.height // shrink))
        return _upright(image, resize, fit)


def prepared(image: Image.Image, resize: int | None, fit: Fit) -> Image.Image:
    """Return an image that Pillow has opened as `decode` does. Raises `OSError`."""
    with _pillow():
        return _upright(image, resize, fit)


def _upright(image: Image.Image, resize: int | None, fit: Fit) -> Image.Image:
    if resize is not None:
        # A JPEG can be decoded at 1/2, 1/4 or 1/8, but at no less than twice the final size.
        image.draft(None, (2 * resize, 2 * resize))
    image.load()
    picture = _to_rgb(image)
    turn = UPRIGHT.get(_orientation(image))
    return fitted(picture if turn is None else picture.transpose(turn), resize, fit)


def header_size(file: io.BufferedIOBase) -> tuple[int, int]:
    """Return width and height. Raises `OSError` if `file` does not begin with the header of an
    image."""
    with _pillow(), Image.open(file, formats=FORMATS) as image:  # type: ignore[arg-type]
        return image.size


def fitted(image: Image.Image, size: int | None, fit: Fit) -> Image.Image:
    """Return `image` as a square of `size` px. With `size` None, crop leaves it as it is, and pad
    and stretch take its longer side (at most `LARGEST_SIDE`)."""
    side = size or min(max(image.size), LARGEST_SIDE)
    match fit:
        case "crop":
            return image if size is None else square(image, size)
        case "pad":
            length = side / max(image.size)
            width, height = (max(1, round(length * pixels)) for pixels in image.size)
            padded = Image.new("RGB", (side, side), PADDING)
            resized = image.resize((width, height), Image.Resampling.BICUBIC)
            padded.paste(resized, ((side - width) // 2, (side - height) // 2))
            return padded
        case "stretch":
            return image.resize((side, side), Image.Resampling.BICUBIC)
    raise UserError(f"data.fit cannot be {fit!r}: {nearest(fit, get_args(Fit))}")


def square(image: Image.Image, size: int) -> Image.Image:
    """Return the largest centred square of `image`, resized (bicubic, antialiased) to `size` px.
    This equals resizing the short side and cropping the centre."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # Pillow raises any error on damaged metadata; the picture is still usable
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _to_8_bits(image).convert("RGB")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Convert grey values of 12, 16 or 32 bits to 8 bits.

    Integers range from 0 to 65535, also in Pillow's 32-bit mode, and floats from 0 to 1. If an
    image has values outside this range, its own minimum and maximum are the range. In a TIFF, 0 may
    mean white, and 12 bits range to 4095. A transparent value becomes white.
    """
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    values = np.asarray(image).astype(np.float32)
    finite = np.isfinite(values)
    deepest = 4095.0 if tags.get(DEPTH_TAG) == (12,) else 65535.0
    low, high = 0.0, 1.0 if image.mode == "F" else deepest
    if finite.any():
        minimum, maximum = float(values[finite].min()), float(values[finite].max())
        if minimum < low or maximum > high:
            low, high = minimum, max(maximum, minimum + 1e-6)
    if high - low > LARGE_SPAN:
        values = values.astype(np.float64)
    values = np.where(finite, values, low)
    grey = np.rint((values - low) / ((high - low) or 1.0) * 255).clip(0, 255).astype(np.uint8)
    grey[~finite] = 0
    if tags.get(PHOTOMETRIC_TAG) == WHITE_IS_ZERO:
        grey = 255 - grey
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey)


@contextlib.contextmanager
def _pillow() -> Iterator[None]:
    """Suppress Pillow's warnings, and turn every error into an `OSError` of one line."""
    try:
        with quiet():
            yield
    except UnidentifiedImageError as error:
        raise OSError("not an image of a known format") from error
    except Exception as error:  # Pillow's plugins raise any error on a damaged file
        raise OSError(line_of(error)) from error
