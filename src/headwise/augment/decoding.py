"""Batches of image files, decoded and cut by worker processes, a whole batch at a time."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from headwise.augment.crop import crop_boxes
from headwise.data import ImageFiles
from headwise.errors import UserError

Skipped = list[tuple[str, str]]
"""Files that could not be read: (id, reason)."""


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
    for place, first in enumerate(index.tolist()):
        image = _first_readable(images, first, skipped)
        for row in range(place, len(draws), len(index)):
            box = crop_boxes(draws[row : row + 1], image.height, image.width, ratio)
            crops[row] = _cut(image, *box[0].tolist(), size=size)
    return crops, skipped


def read_whole(
    images: ImageFiles, index: Iterable[int], size: int
) -> tuple[Int64[Tensor, " k"], UInt8[Tensor, "k 3 size size"]]:
    """The central squares of files, with the indices of those that could be read."""
    squares = {}
    for i in index:
        try:
            image = images.read(i)
        except OSError:
            continue
        side = min(image.size)
        top, left = (image.height - side) // 2, (image.width - side) // 2
        squares[i] = _cut(image, top, left, side, side, size=size)
    empty = torch.empty(0, 3, size, size, dtype=torch.uint8)
    pixels = torch.stack(list(squares.values())) if squares else empty
    return torch.tensor(list(squares), dtype=torch.int64), pixels


def loader(read: Callable[[int], tuple], keys: Sequence[int], workers: int) -> DataLoader:
    """`read(key)` for every key in order, ahead of time in `workers` processes (0: in this one)."""
    return DataLoader(
        _Keyed(read),
        batch_size=None,
        sampler=keys,
        num_workers=workers,
        collate_fn=lambda batch: batch,  # the default one turns tuples into lists
        prefetch_factor=2 if workers else None,
        # Forked, so that `read` needs no pickling and the listing is not copied.
        multiprocessing_context="fork" if workers else None,
    )


class _Keyed(Dataset):
    def __init__(self, read: Callable[[int], tuple]) -> None:
        self.read = read

    def __getitem__(self, index: int) -> tuple:
        return self.read(index)


def _first_readable(images: ImageFiles, first: int, skipped: Skipped) -> Image.Image:
    for i in range(first, first + len(images)):
        try:
            return images.read(i % len(images))
        except OSError as error:
            skipped.append((images.ids[i % len(images)], str(error)))
    raise UserError(f"at least one image must be readable; none of {len(images)} is")


def _cut(
    image: Image.Image, top: int, left: int, height: int, width: int, *, size: int
) -> UInt8[Tensor, "3 size size"]:
    # Cut before resizing: `resize(box=...)` would also weigh in pixels from beyond the box.
    cut = image.crop((left, top, left + width, top + height))
    pixels = np.array(cut.resize((size, size), Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels).permute(2, 0, 1)
