"""From images to batches on the training device: random views to train on, whole images to
evaluate. A batch is a function of its step."""

import functools
import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from headwise import rng
from headwise.augment.crop import apply_crop, crop_boxes
from headwise.augment.decoding import Skipped, loader, read_crops, read_whole
from headwise.augment.ops import normalise
from headwise.augment.policies import (
    AugmentConfig,
    ViewParameters,
    make_views,
    sample_views,
)
from headwise.config import chosen
from headwise.data import Images, ResidentImages
from headwise.runtime import distributed

PART = 32
"""Images that a worker reads at a time."""


def batch_index(n: int, batch_size: int, step: int, seed: int) -> Int64[Tensor, " b"]:
    """The images of the batch at `step`: each epoch is a new permutation, keyed by seed and epoch,
    whose last, incomplete batch is left out."""
    epoch, batch = divmod(step, n // batch_size)
    return _permutation(n, epoch, seed)[batch * batch_size : (batch + 1) * batch_size]


@functools.lru_cache(maxsize=2)
def _permutation(n: int, epoch: int, seed: int) -> Int64[Tensor, " n"]:
    return torch.randperm(n, generator=rng.generator(seed, "epoch", epoch))


def local_rows(n: int) -> slice:
    """This rank's share of `n` rows."""
    each = n // distributed.world_size()
    return slice(distributed.rank() * each, (distributed.rank() + 1) * each)


def place(
    config: AugmentConfig, n: int, batch_size: int, step: int, seed: int, *, views: int = 2
) -> tuple[Int64[Tensor, " k"], ViewParameters]:
    """This rank's images at `step` and the parameters of their views. The parameters are drawn for
    two views of the whole batch, so that they depend on the number of neither ranks nor views."""
    mine = local_rows(batch_size)
    rows = torch.arange(2 * batch_size).reshape(2, batch_size)[:views, mine].reshape(-1)
    parameters = sample_views(config, batch_size, seed, step).rows(rows)
    return batch_index(n, batch_size, step, seed)[mine], parameters


def view_batches(
    images: Images,
    config: AugmentConfig,
    *,
    batch_size: int,
    steps: range,
    seed: int,
    device: str,
    workers: int,
    views: int = 2,
) -> Iterator[tuple[Float[Tensor, "m 3 s s"], Skipped]]:
    """For every step, this rank's views (normalised, first all first views, then their twins) and
    what could not be read (a file that cannot is replaced by the next that can). With one view an
    image, it is the first of the two."""
    n = len(images)
    if isinstance(images, ResidentImages):
        for step in steps:
            index, parameters = place(config, n, batch_size, step, seed, views=views)
            pixels = images.pixels[index.to(images.pixels.device, non_blocking=True)]
            pixels = pixels.to(device, non_blocking=True)
            height, width = pixels.shape[-2:]
            boxes = crop_boxes(parameters.crop, height, width, config.crop_ratio)
            yield make_views(config, pixels, boxes, parameters), []
    else:
        # Of every batch each worker reads a part, so that the first comes soon and the memory for
        # batches ahead does not grow with the number of workers.
        size, ratio = chosen(config.size), config.crop_ratio
        parts = math.ceil(batch_size // distributed.world_size() / PART)

        def read(key: int) -> tuple[UInt8[Tensor, "m 3 s s"], Skipped]:
            step, part = steps[key // parts], key % parts
            index, parameters = place(config, n, batch_size, step, seed, views=views)
            mine = slice(part * PART, (part + 1) * PART)
            draws = parameters.crop.unflatten(0, (views, -1))[:, mine].flatten(0, 1)
            return read_crops(images, index[mine], draws, size, ratio)

        made = iter(loader(read, range(len(steps) * parts), workers, ahead=2 * parts))
        for step, group in zip(steps, zip(*[made] * parts, strict=True), strict=True):
            pixels = torch.cat([crops.unflatten(0, (views, -1)) for crops, _ in group], 1).flatten(
                0, 1
            )
            skipped = [one for _, ones in group for one in ones]
            _, parameters = place(config, n, batch_size, step, seed, views=views)
            pixels = pixels.to(device, non_blocking=True)
            yield make_views(config, pixels, None, parameters), skipped


def whole_batches(
    images: Images, config: AugmentConfig, *, batch_size: int, device: str, workers: int
) -> Iterator[tuple[Int64[Tensor, " k"], Float[Tensor, "k 3 s s"]]]:
    """All images in order, resized so that the short side fits and cut to the central square,
    normalised; with the indices of those that could be read."""
    starts, size = range(0, len(images), batch_size), chosen(config.size)
    if isinstance(images, ResidentImages):
        for start in starts:
            pixels = images.pixels[start : start + batch_size].to(device)
            index = torch.arange(start, start + len(pixels))
            yield index, normalised(whole(pixels, size), config)
    else:

        def read(start: int) -> tuple[Int64[Tensor, " k"], UInt8[Tensor, "k 3 s s"]]:
            return read_whole(images, range(start, min(start + batch_size, len(images))), size)

        for index, pixels in loader(read, starts, workers):
            if len(index):
                yield index, normalised(pixels.to(device).float() / 255, config)


def normalised(views: Float[Tensor, "m 3 s s"], config: AugmentConfig) -> Float[Tensor, "m 3 s s"]:
    """The views as the encoder takes them."""
    return normalise(views, chosen(config.mean), chosen(config.std))


def whole(pixels: UInt8[Tensor, "n 3 h w"], size: int) -> Float[Tensor, "n 3 size size"]:
    """The central square of every image at `size` px, in [0, 1]."""
    height, width = pixels.shape[-2:]
    if height == width == size:
        return pixels.float().div_(255)
    side = min(height, width)
    box = torch.tensor([(height - side) // 2, (width - side) // 2, side, side])
    return apply_crop(pixels, box.expand(len(pixels), 4), size)
