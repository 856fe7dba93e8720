"""Batched random resized crop. Every image has its own box; shrinking is antialiased."""

import math

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

# Number of draws for a box until one fits (as in torchvision's RandomResizedCrop).
TRIES = 10


def sample_crop(
    n: int,
    generator: torch.Generator,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Float[Tensor, "n tries 4"]:
    """Draw `n` crops independently of the image size: area as a fraction of the image, aspect ratio
    (width over height, log-uniform), and two positions in [0, 1)."""
    draws = torch.rand(n, TRIES, 4, generator=generator)
    draws[..., 0] = scale[0] + (scale[1] - scale[0]) * draws[..., 0]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    draws[..., 1] = torch.exp(low + (high - low) * draws[..., 1])
    return draws


def crop_boxes(
    draws: Float[Tensor, "n tries 4"], height: int, width: int, ratio: tuple[float, float]
) -> Int64[Tensor, "n 4"]:
    """Return boxes (top, left, height, width) in pixels of an image of this size: the first try
    that fits in the image, or else the largest centred box with an aspect ratio within `ratio`."""
    area, aspect, y, x = draws.double().unbind(-1)
    heights = (area * height * width / aspect).sqrt().round().long().clamp(min=1)
    widths = (area * height * width * aspect).sqrt().round().long().clamp(min=1)
    fits = (heights <= height) & (widths <= width)
    first = fits.long().argmax(1, keepdim=True)
    heights, widths, y, x = (v.gather(1, first).squeeze(1) for v in (heights, widths, y, x))
    top = (y * (height - heights + 1)).long()
    left = (x * (width - widths + 1)).long()
    boxes = torch.stack([top, left, heights, widths], 1)
    whole_height = min(height, max(1, round(width / ratio[0])))
    whole_width = min(width, max(1, round(height * ratio[1])))
    corner = ((height - whole_height) // 2, (width - whole_width) // 2)
    whole = torch.tensor([*corner, whole_height, whole_width])
    return torch.where(fits.any(1, keepdim=True), boxes, whole)


def apply_crop(
    images: UInt8[Tensor, "n c height width"] | Float[Tensor, "n c height width"],
    boxes: Int64[Tensor, "m 4"],
    size: int,
) -> Float[Tensor, "m c size size"]:
    """Cut each box and resize it to `size`, bilinear, with a wider filter if it shrinks.

    `m` is a multiple of `n`, and box `j` cuts image `j mod n`: `2n` boxes give two views. uint8
    images become floats in [0, 1]. Resizing multiplies by one small matrix for the rows and one for
    the columns, so two calls resize the whole batch.
    """
    n, channels, height, width = images.shape
    if images.dtype == torch.uint8:
        images = images.float().div_(255)
    rows = _resize_matrix(boxes[:, 0], boxes[:, 2], height, size, images)
    columns = _resize_matrix(boxes[:, 1], boxes[:, 3], width, size, images)
    views = len(boxes) // n
    images = images.reshape(1, n, channels * height, width)
    narrow = images @ columns.mT.reshape(views, n, width, size)
    narrow = narrow.reshape(len(boxes), channels, height, size)
    return rows.unsqueeze(1) @ narrow


def _resize_matrix(
    start: Int64[Tensor, " m"],
    length: Int64[Tensor, " m"],
    source: int,
    size: int,
    like: Float[Tensor, "..."],
) -> Float[Tensor, "m size source"]:
    """Return the weights of the source pixels in each output pixel: a triangle around the output
    pixel's centre that reaches one source pixel or one output pixel to each side, whichever is
    larger. Pixels outside the box have no weight, even inside the image."""
    start = start.to(like.device, non_blocking=True)[:, None]
    length = length.to(like.device, non_blocking=True)[:, None]
    step = length.to(like.dtype) / size
    centre = (torch.arange(size, device=like.device) + 0.5) * step
    pixel = torch.arange(source, device=like.device) - start  # distance to the box's edge
    distance = (pixel[:, None] + 0.5 - centre[..., None]).abs() / step.clamp(min=1)[..., None]
    inside = (pixel >= 0) & (pixel < length)
    weights = (1 - distance).clamp(min=0) * inside[:, None]
    return weights / weights.sum(-1, keepdim=True)
