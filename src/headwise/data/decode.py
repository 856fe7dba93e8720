"""One image file to one upright 8-bit RGB picture, whatever the file holds.

Transparent pixels are composited over white: their hidden colour (often black) is not the picture.
16-bit values are scaled by 1/257, never clipped. Of an animation the first frame counts.
"""

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

ORIENTATION_TAG = 0x0112
# EXIF 2.32, table 4.6.4 A: what turns each stored orientation upright.
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
    """Of the upright picture, as `width`."""
    width: int
    jpeg: bytes
    """The file; empty where `decoded` is there."""
    plain: bool
    """Whether the JPEG is grey or RGB, and upright as it is stored."""
    decoded: UInt8[Tensor, "3 h w"] | None

    def pixels(self, shrink: int = 1) -> UInt8[Tensor, "3 _ _"]:
        """The picture that `decode` gives; of a JPEG at 1/`shrink` (2, 4 or 8) of its size. Raises
        `OSError` as `decode`."""
        if self.decoded is not None:
            return self.decoded
        if self.plain and shrink == 1:
            from torchvision.io import ImageReadMode, decode_jpeg

            # The same pixels as Pillow's, sooner. What it refuses, Pillow decodes or explains.
            with contextlib.suppress(RuntimeError):
                data = torch.frombuffer(bytearray(self.jpeg), dtype=torch.uint8)
                return torch.as_tensor(decode_jpeg(data, ImageReadMode.RGB))
        return _tensor(decode(io.BytesIO(self.jpeg), shrink=shrink))


def open_image(data: bytes, resize: int | None = None) -> LazyImage:
    """The image that a file of these bytes holds. `resize` and errors as in `decode`."""
    if resize is None:
        with _pillow(), Image.open(io.BytesIO(data)) as image:
            if image.format in ("JPEG", "MPO"):
                orientation = _orientation(image)
                width, height = image.size if orientation < 5 else image.size[::-1]
                upright = image.format == "JPEG" and orientation not in UPRIGHT
                return LazyImage(height, width, data, upright and image.mode in ("L", "RGB"), None)
    pixels = _tensor(decode(io.BytesIO(data), resize))
    return LazyImage(pixels.shape[1], pixels.shape[2], b"", False, pixels)


def _tensor(picture: Image.Image) -> UInt8[Tensor, "3 h w"]:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def decode(file: io.BufferedIOBase, resize: int | None = None, shrink: int = 1) -> Image.Image:
    """The picture in `file` as RGB, turned upright by its EXIF orientation; with `resize` a square
    of that many pixels (`square`), or else a JPEG at 1/`shrink` (2, 4 or 8) of its size.

    Raises `OSError` with a reason of one line for anything that cannot be decoded whole:
    damaged, truncated, no image, or so large that Pillow takes it for a decompression bomb.
    """
    with _pillow(), Image.open(file) as image:  # type: ignore[arg-type]
        if resize is not None:
            # A JPEG can be decoded at 1/2, 1/4, 1/8: never below twice the size that is wanted.
            image.draft(None, (2 * resize, 2 * resize))
        elif shrink > 1:
            image.draft(None, (image.width // shrink, image.height // shrink))
        image.load()
        picture = _to_rgb(image)
        turn = UPRIGHT.get(_orientation(image))
        if turn is not None:
            picture = picture.transpose(turn)
        return picture if resize is None else square(picture, resize)


def check_header(file: io.BufferedIOBase) -> None:
    """Raise `OSError` where even the header of `file` is not that of an image."""
    with _pillow(), Image.open(file):  # type: ignore[arg-type]
        pass


def square(image: Image.Image, size: int) -> Image.Image:
    """The largest centred square of `image`, resized (bicubic, antialiased) to `size` pixels:
    the same as resizing the short side and cropping the centre."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # damaged metadata, of which Pillow raises anything, do not spoil a picture
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
    """Grey values of 16 or 32 bits as 8.

    16-bit integers, also those in Pillow's 32-bit mode, span 0 to 65535 and floats 0 to 1. An image
    with values beyond that span is stretched from its own least to its own greatest value.
    """
    values = np.asarray(image).astype(np.float32)
    finite = np.isfinite(values)
    low, high = 0.0, 1.0 if image.mode == "F" else 65535.0
    if finite.any():
        least, most = float(values[finite].min()), float(values[finite].max())
        if least < low or most > high:
            low, high = least, max(most, least + 1e-6)
    values = np.where(finite, (values - low) / (high - low), 0.0)
    return Image.fromarray(np.rint(values * 255).clip(0, 255).astype(np.uint8))


@contextlib.contextmanager
def _pillow() -> Iterator[None]:
    """Pillow without its warnings, and with every error as an `OSError` of one line."""
    try:
        with quiet():
            yield
    except UnidentifiedImageError as error:
        raise OSError("not an image of a known format") from error
    except Exception as error:  # its plugins raise anything on a damaged file
        line = " ".join(str(error).split())
        raise OSError(line or type(error).__name__) from error


_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_filters = warnings.catch_warnings()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Pillow's warnings off while any thread is inside.

    `catch_warnings` alone is not for threads: when two overlap, the second restores the filters
    of the first, and the silence stays. Here the first in sets and the last out restores.
    """
    global _quiet_depth, _quiet_filters
    with _quiet_lock:
        if _quiet_depth == 0:
            _quiet_filters = warnings.catch_warnings()
            _quiet_filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                _quiet_filters.__exit__(None, None, None)
