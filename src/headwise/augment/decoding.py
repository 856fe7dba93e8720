"""Batches of image files, decoded and cut by worker processes."""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from headwise.data import ImageFiles
from headwise.data.decode import Opened
from headwise.errors import UserError

Skipped = list[tuple[str, str]]
"""Files that could not be read: (id, reason)."""

Box = tuple[int, int, int, int]
"""Top, left, height, width in pixels of the upright picture."""

Draws = list[list[float]]
"""As `crop_boxes` takes them, of one view."""

ROOM = 2
"""A JPEG is not shrunk below so many times the size that is wanted."""


def read_crops(
    images: ImageFiles,
    index: Int64[Tensor, " n"],
    draws: Float[Tensor, "m tries 4"],
    size: int,
    ratio: tuple[float, float],
) -> tuple[UInt8[Tensor, "m 3 size size"], Skipped]:
    """Random-resized crops of files: as many views of each image as there are draws for it.

    A file that cannot be read is replaced by the next that can.
    """
    crops = torch.empty(len(draws), 3, size, size, dtype=torch.uint8)
    skipped: Skipped = []
    tries = draws.tolist()
    for place, first in enumerate(index.tolist()):
        rows = slice(place, None, len(index))
        crops[rows] = _views(images, first, tries[rows], size, ratio, skipped)
    return crops, skipped


def read_whole(
    images: ImageFiles, index: Iterable[int], size: int
) -> tuple[Int64[Tensor, " k"], UInt8[Tensor, "k 3 size size"]]:
    """The central squares of files, with the indices of those that could be read.

    Decoded and resized by Pillow, as whoever takes the encoder away will prepare images for it.
    """
    squares = {}
    for i in index:
        try:
            image = images.read(i)
        except OSError:
            continue
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        cut = image.crop((left, top, left + side, top + side))
        square = np.array(cut.resize((size, size), Image.Resampling.BILINEAR))
        squares[i] = torch.from_numpy(square).permute(2, 0, 1)
    empty = torch.empty(0, 3, size, size, dtype=torch.uint8)
    pixels = torch.stack(list(squares.values())) if squares else empty
    return torch.tensor(list(squares), dtype=torch.int64), pixels


def loader(
    read: Callable[[int], tuple], keys: Sequence[int], workers: int, *, ahead: int = 0
) -> DataLoader:
    """`read(key)` for every key in order, in `workers` processes (0: in this one), each two keys
    ahead, or more where together they would not be `ahead`."""
    return DataLoader(
        _Keyed(read),
        batch_size=None,
        sampler=keys,
        num_workers=workers,
        collate_fn=lambda batch: batch,  # the default one turns tuples into lists
        prefetch_factor=max(2, math.ceil(ahead / workers)) if workers else None,
        # Forked, so that `read` needs no pickling and the listing is not copied.
        multiprocessing_context="fork" if workers else None,
    )


class _Keyed(Dataset):
    def __init__(self, read: Callable[[int], tuple]) -> None:
        self.read = read

    def __getitem__(self, index: int) -> tuple:
        return self.read(index)


def _views(
    images: ImageFiles,
    first: int,
    draws: list[Draws],
    size: int,
    ratio: tuple[float, float],
    skipped: Skipped,
) -> UInt8[Tensor, "views 3 size size"]:
    """Crops of image `first`, or of the next that can be read."""
    for i in range(first, first + len(images)):
        try:
            with images.open(i % len(images)) as image:
                boxes = [_box(tries, image.height, image.width, ratio) for tries in draws]
                return _cut(image, boxes, size)
        except OSError as error:
            skipped.append((images.ids[i % len(images)], str(error)))
    raise UserError(f"at least one image must be readable; none of {len(images)} is")


def _box(draws: Draws, height: int, width: int, ratio: tuple[float, float]) -> Box:
    """`crop_boxes` for one view, without tensors: images come one by one here, and then its
    overhead is a tenth of all the work."""
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


def _cut(image: Opened, boxes: list[Box], size: int) -> UInt8[Tensor, "views 3 size size"]:
    """Boxes resized to `size`, bilinear and antialiased.

    Of a large JPEG no more detail is decoded than the boxes need: it shrinks while it is decoded,
    as long as every box keeps `ROOM` times `size` pixels a side.
    """
    need = min(min(height, width) for _, _, height, width in boxes) // (ROOM * size)
    pixels = image.pixels(next((shrink for shrink in (8, 4, 2) if shrink <= need), 1))
    y, x = pixels.shape[1] / image.height, pixels.shape[2] / image.width
    views = []
    for top, left, height, width in boxes:
        # Cut first: the edge is the box, pixels beyond it have no weight.
        rows = slice(round(top * y), round((top + height) * y))
        columns = slice(round(left * x), round((left + width) * x))
        cut = pixels[None, :, rows, columns]
        views.append(F.interpolate(cut, (size, size), mode="bilinear", antialias=True))
    return torch.cat(views)
