"""Batches on the training device: random views for training, whole images for evaluation. The
batch of a step is a function of the step."""

import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from headwise import rng
from headwise.augment.crop import apply_crop, crop_boxes
from headwise.augment.decoding import read_central_squares, read_crops
from headwise.augment.ops import normalise
from headwise.augment.policies import ResolvedAugment
from headwise.augment.views import ViewParameters, make_views, sample_views
from headwise.data import ImageFiles, Images, ResidentImages
from headwise.data.unreadable import Unreadable
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


class Views(NamedTuple):
    """This rank's views of one step."""

    pixels: Float[Tensor, "m 3 s s"]
    """Normalised; all first views, then their twins."""
    shown: Int64[Tensor, " n"]
    """The image in every row of the first views: that of `batch_index`, or the one that replaces
    it because it cannot be read. Labels and ids are those of this image."""
    replaced: Bool[Tensor, " n"]
    """Which rows show another image than that of `batch_index`."""
    unreadable: Unreadable
    """What could not be read."""


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
) -> Iterator[Views]:
    """Yield the views of every step. A file that cannot be read is replaced by the next readable
    one. With `views` of 1, each image has only the first of its two views. Raises `UserError` if
    more files are unreadable than `images` tolerate."""
    draw = functools.partial(local_batch, config, len(images), batch_size, seed=seed, views=views)
    if isinstance(images, ImageFiles):
        yield from _views_of_files(images, config, draw, steps, device=device, workers=workers)
        return
    for step in steps:
        index, parameters = draw(step)
        pixels = images.pixels[index.to(images.pixels.device, non_blocking=True)]
        pixels = pixels.to(device, non_blocking=True)
        height, width = pixels.shape[-2:]
        boxes = crop_boxes(parameters.crop, height, width, config.crop_ratio)
        none = torch.zeros(len(index), dtype=torch.bool)
        yield Views(make_views(config, pixels, boxes, parameters), index, none, [])


def _views_of_files(
    images: ImageFiles,
    config: ResolvedAugment,
    draw: Callable[[int], tuple[Int64[Tensor, " n"], ViewParameters]],
    steps: range,
    *,
    device: str,
    workers: int,
) -> Iterator[Views]:
    if not steps:
        return
    # A task is a part of a batch: the first batch comes soon, and the memory for prefetched
    # batches does not grow with the number of workers.
    size, ratio = config.size, config.crop_ratio
    index, parameters = draw(steps[0])
    parts, views = math.ceil(len(index) / PART), len(parameters.crop) // len(index)

    def read(key: int) -> tuple[UInt8[Tensor, "m 3 s s"], Int64[Tensor, " n"], Unreadable]:
        index, parameters = draw(steps[key // parts])
        part = slice(key % parts * PART, (key % parts + 1) * PART)
        draws = parameters.crop.unflatten(0, (views, -1))[:, part].flatten(0, 1)
        return read_crops(images, index[part], draws, size, ratio)

    keys, ahead = range(len(steps) * parts), _ahead(2 * parts, workers)
    read_parts = in_workers(read, keys, workers, ahead=ahead, room=views * _room(PART, size))
    found: dict[str, str] = {}
    for step, batch in zip(steps, zip(*[read_parts] * parts, strict=True), strict=True):
        crops = torch.cat([crops.unflatten(0, (views, -1)) for crops, _, _ in batch], 1)
        pixels = crops.flatten(0, 1).to(device, non_blocking=True)
        index, parameters = draw(step)
        shown = torch.cat([part for _, part, _ in batch])
        unreadable = [file for _, _, files in batch for file in files]
        if unreadable:
            if not found:
                images.say(dict(unreadable), "replaced")
            found |= dict(unreadable)
            images.check(found)
        made = make_views(config, pixels, None, parameters)
        yield Views(made, shown, shown != index, unreadable)
    images.say(found, "replaced")


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
    normalised, together with their indices. Unreadable images are left out. Raises `UserError` if
    they are more than `images` tolerate."""
    starts, size = range(0, len(images), batch_size), config.size
    if isinstance(images, ResidentImages):
        for start in starts:
            pixels = images.pixels[start : start + batch_size].to(device)
            index = torch.arange(start, start + len(pixels))
            yield index, normalised(central_squares(pixels, size), config)
    else:

        def read(start: int) -> tuple[Int64[Tensor, " k"], UInt8[Tensor, "k 3 s s"], Unreadable]:
            index = range(start, min(start + batch_size, len(images)))
            return read_central_squares(images, index, size)

        room, found = _room(batch_size, size), {}
        for index, pixels, unreadable in in_workers(read, starts, workers, ahead=2, room=room):
            found |= dict(unreadable)
            images.check(found)
            if len(index):
                yield index, normalised(pixels.to(device).float() / 255, config)
        images.say(found, "left out")


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
