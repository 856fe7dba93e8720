"""Batches on the training device: random views for training, whole images for evaluation. The
batch of a step is a function of the step."""

import functools
import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from headwise import rng
from headwise.augment.crop import apply_crop, crop_boxes
from headwise.augment.decoding import Skipped, read_central_squares, read_crops
from headwise.augment.ops import normalise
from headwise.augment.policies import (
    ResolvedAugment,
    ViewParameters,
    make_views,
    sample_views,
)
from headwise.data import Images, ResidentImages
from headwise.runtime import distributed
from headwise.runtime.workers import in_workers

PART = 32
"""Number of images in a worker's task."""


def batch_index(n: int, batch_size: int, step: int, seed: int) -> Int64[Tensor, " b"]:
    """Return the images of the batch at `step`. Each epoch is a permutation made from seed and
    epoch. Its last batch is left out if it is incomplete."""
    epoch, batch = divmod(step, n // batch_size)
    return _permutation(n, epoch, seed)[batch * batch_size : (batch + 1) * batch_size]


@functools.lru_cache(maxsize=2)
def _permutation(n: int, epoch: int, seed: int) -> Int64[Tensor, " n"]:
    return torch.randperm(n, generator=rng.generator(seed, "epoch", epoch))


def local_rows(n: int) -> slice:
    """Return this rank's part of `n` rows."""
    count = n // distributed.world_size()
    return slice(distributed.rank() * count, (distributed.rank() + 1) * count)


def local_batch(
    config: ResolvedAugment, n: int, batch_size: int, step: int, seed: int, *, views: int = 2
) -> tuple[Int64[Tensor, " k"], ViewParameters]:
    """Return this rank's images at `step` and the parameters of their views. They are drawn for two
    views of the whole batch, so they do not depend on the number of ranks or views."""
    local = local_rows(batch_size)
    rows = torch.arange(2 * batch_size).reshape(2, batch_size)[:views, local].reshape(-1)
    parameters = sample_views(config, batch_size, seed, step).rows(rows)
    return batch_index(n, batch_size, step, seed)[local], parameters


def view_batches(
    images: Images,
    config: ResolvedAugment,
    *,
    batch_size: int,
    steps: range,
    seed: int,
    device: str,
    workers: int,
    views: int = 2,
) -> Iterator[tuple[Float[Tensor, "m 3 s s"], Skipped]]:
    """Yield for every step this rank's normalised views (all first views, then their twins) and the
    files that could not be read, which are replaced by the next readable file. With `views` of 1,
    each image has only the first of its two views."""
    draw = functools.partial(local_batch, config, len(images), batch_size, seed=seed, views=views)
    if isinstance(images, ResidentImages):
        for step in steps:
            index, parameters = draw(step)
            pixels = images.pixels[index.to(images.pixels.device, non_blocking=True)]
            pixels = pixels.to(device, non_blocking=True)
            height, width = pixels.shape[-2:]
            boxes = crop_boxes(parameters.crop, height, width, config.crop_ratio)
            yield make_views(config, pixels, boxes, parameters), []
    else:
        # A task is a part of a batch: the first batch comes soon, and the memory for prefetched
        # batches does not grow with the number of workers.
        size, ratio = config.size, config.crop_ratio
        parts = math.ceil(batch_size // distributed.world_size() / PART)

        def read(key: int) -> tuple[UInt8[Tensor, "m 3 s s"], Skipped]:
            index, parameters = draw(steps[key // parts])
            part = slice(key % parts * PART, (key % parts + 1) * PART)
            draws = parameters.crop.unflatten(0, (views, -1))[:, part].flatten(0, 1)
            return read_crops(images, index[part], draws, size, ratio)

        keys, ahead = range(len(steps) * parts), _ahead(2 * parts, workers)
        read_parts = in_workers(read, keys, workers, ahead=ahead, room=views * _room(PART, size))
        for step, batch in zip(steps, zip(*[read_parts] * parts, strict=True), strict=True):
            crops = torch.cat([crops.unflatten(0, (views, -1)) for crops, _ in batch], 1)
            pixels = crops.flatten(0, 1).to(device, non_blocking=True)
            skipped = [file for _, files in batch for file in files]
            yield make_views(config, pixels, None, draw(step)[1]), skipped


def _ahead(tasks: int, workers: int) -> int:
    """Return how many tasks each worker is ahead: two, or more to have `tasks` in all."""
    return max(2, math.ceil(tasks / max(workers, 1)))


def _room(images: int, size: int) -> int:
    """Return the bytes of that many images, with their indices."""
    return images * (3 * size * size + 8)


def whole_batches(
    images: Images, config: ResolvedAugment, *, batch_size: int, device: str, workers: int
) -> Iterator[tuple[Int64[Tensor, " k"], Float[Tensor, "k 3 s s"]]]:
    """Yield all images in order, resized by the short side, cut to the central square and
    normalised, together with their indices. Unreadable images are left out."""
    starts, size = range(0, len(images), batch_size), config.size
    if isinstance(images, ResidentImages):
        for start in starts:
            pixels = images.pixels[start : start + batch_size].to(device)
            index = torch.arange(start, start + len(pixels))
            yield index, normalised(central_squares(pixels, size), config)
    else:

        def read(start: int) -> tuple[Int64[Tensor, " k"], UInt8[Tensor, "k 3 s s"]]:
            index = range(start, min(start + batch_size, len(images)))
            return read_central_squares(images, index, size)

        room = _room(batch_size, size)
        for index, pixels in in_workers(read, starts, workers, ahead=2, room=room):
            if len(index):
                yield index, normalised(pixels.to(device).float() / 255, config)


def normalised(
    views: Float[Tensor, "m 3 s s"], config: ResolvedAugment
) -> Float[Tensor, "m 3 s s"]:
    """Return the views as the encoder takes them."""
    return normalise(views, config.mean, config.std)


def central_squares(pixels: UInt8[Tensor, "n 3 h w"], size: int) -> Float[Tensor, "n 3 size size"]:
    """Return the central square of every image at `size` px, in [0, 1]."""
    height, width = pixels.shape[-2:]
    if height == width == size:
        return pixels.float().div_(255)
    side = min(height, width)
    box = torch.tensor([(height - side) // 2, (width - side) // 2, side, side])
    return apply_crop(pixels, box.expand(len(pixels), 4), size)
