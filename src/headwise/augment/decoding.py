"""Batches from image files: worker processes decode and cut them."""

import math
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor

from headwise.data import ImageFiles
from headwise.data.decode import LazyImage
from headwise.data.unreadable import Unreadable
from headwise.errors import UserError

Box = tuple[int, int, int, int]
"""Top, left, height, width in pixels of the upright picture."""

Draws = list[list[float]]
"""The draws of one view, as `crop_boxes` takes them."""

OVERSAMPLING = 2
"""A JPEG is decoded at no less than this multiple of the view's size."""


def read_crops(
    images: ImageFiles,
    index: Int64[Tensor, " n"],
    draws: Float[Tensor, "m tries 4"],
    size: int,
    ratio: tuple[float, float],
) -> tuple[UInt8[Tensor, "m 3 size size"], Int64[Tensor, " n"], Unreadable]:
    """Return random resized crops of files, as many views of each image as it has draws, and the
    images that they show. An unreadable file is replaced by the next readable one."""
    crops = torch.empty(len(draws), 3, size, size, dtype=torch.uint8)
    shown, unreadable = torch.empty_like(index), []
    tries = draws.tolist()
    for i, first in enumerate(index.tolist()):
        rows = slice(i, None, len(index))
        crops[rows], shown[i], passed_over = _views(images, first, tries[rows], size, ratio)
        unreadable += passed_over
    return crops, shown, unreadable


def read_central_squares(
    images: ImageFiles, index: Iterable[int], size: int
) -> tuple[Int64[Tensor, " k"], UInt8[Tensor, "k 3 size size"], Unreadable]:
    """Return the central squares of the readable files, with their indices, and the other files.
    Pillow decodes and resizes them, as users of an exported encoder do."""
    squares, unreadable = {}, []
    for i in index:
        try:
            image = images.read(i)
        except OSError as error:
            unreadable.append((images.ids[i], str(error)))
            continue
        squares[i] = central_square(image, size)
    empty = torch.empty(0, 3, size, size, dtype=torch.uint8)
    pixels = torch.stack(list(squares.values())) if squares else empty
    return torch.tensor(list(squares), dtype=torch.int64), pixels, unreadable


def central_square(image: Image.Image, size: int) -> UInt8[Tensor, "3 size size"]:
    """Return the central square of an RGB image at `size` px, bilinear and antialiased."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    cut = image.crop((left, top, left + side, top + side))
    square = np.array(cut.resize((size, size), Image.Resampling.BILINEAR))
    return torch.from_numpy(square).permute(2, 0, 1)


def _views(
    images: ImageFiles,
    first: int,
    draws: list[Draws],
    size: int,
    ratio: tuple[float, float],
) -> tuple[UInt8[Tensor, "views 3 size size"], int, Unreadable]:
    """Return crops of image `first` or of the next readable one, which of them it is, and the files
    passed over for it."""
    unreadable: Unreadable = []
    for i in (place % len(images) for place in range(first, first + len(images))):
        try:
            with images.open(i) as image:
                boxes = [_box(tries, image.height, image.width, ratio) for tries in draws]
                return _cut(image, boxes, size), i, unreadable
        except OSError as error:
            unreadable.append((images.ids[i], str(error)))
    raise UserError(f"at least one image must be readable; none of the {len(images)} images is")


def _box(draws: Draws, height: int, width: int, ratio: tuple[float, float]) -> Box:
    """Do what `crop_boxes` does for one view without tensors. Images come one by one here, and
    tensors would add a tenth to the time of all the work."""
    for area, aspect, y, x in draws:
        tall = max(1, round(math.sqrt(area * height * width / aspect)))
        wide = max(1, round(math.sqrt(area * height * width * aspect)))
        if tall <= height and wide <= width:
            return int(y * (height - tall + 1)), int(x * (width - wide + 1)), tall, wide
    tall, wide = (
        min(height, max(1, round(width / ratio[0]))),
        min(width, max(1, round(height * ratio[1]))),
    )
    return (height - tall) // 2, (width - wide) // 2, tall, wide


def _cut(image: LazyImage, boxes: list[Box], size: int) -> UInt8[Tensor, "views 3 size size"]:
    """Return the boxes resized to `size`, bilinear and antialiased. A large JPEG is decoded at a
    smaller scale, such that every box keeps `OVERSAMPLING` times `size` pixels on each side."""
    limit = min(min(height, width) for _, _, height, width in boxes) // (OVERSAMPLING * size)
    pixels = image.pixels(next((shrink for shrink in (8, 4, 2) if shrink <= limit), 1))
    y, x = pixels.shape[1] / image.height, pixels.shape[2] / image.width
    views = []
    for top, left, height, width in boxes:
        # Cut before resizing, so that pixels outside the box have no weight.
        rows = slice(round(top * y), round((top + height) * y))
        columns = slice(round(left * x), round((left + width) * x))
        cut = pixels[None, :, rows, columns]
        views.append(F.interpolate(cut, (size, size), mode="bilinear", antialias=True))
    return torch.cat(views)
