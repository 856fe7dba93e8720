"""All operations except the crop, as pairs of functions: *sample* draws parameters, *apply* uses
them. Images are floats in [0, 1], `[n 3 h w]`, and every row has its own parameters.

Parameters are drawn on the CPU, so they are the same on every device, and rows can be grouped by
their parameters without synchronising the device and the host.
"""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

# Luma weights of ITU-R BT.601, as Pillow and torchvision use them.
_LUMA = (0.2989, 0.587, 0.114)

# The kinds of colour jitter, in the order of `Jitter.factors`.
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)

# Large images are blurred in bands of this size, because a blur matrix is mostly zeros.
_BAND_PX = 112


def sample_mask(n: int, generator: torch.Generator, *, probability: float) -> Bool[Tensor, " n"]:
    """Draw the rows that an operation applies to."""
    return torch.rand(n, generator=generator) < probability


def apply_flip(
    images: Float[Tensor, "n 3 h w"], flipped: Bool[Tensor, " n"]
) -> Float[Tensor, "n 3 h w"]:
    """Mirror left and right."""
    return _apply_to_rows(images, flipped, lambda rows: rows.flip(-1))


class Jitter(NamedTuple):
    """Colour jitter of `n` rows. A factor of 1 (for the hue: 0) changes nothing."""

    factors: Float[Tensor, "n 4"]
    """Brightness, contrast and saturation as factors, and hue as a shift in turns."""
    order: Int64[Tensor, "n 4"]
    """Which of the four is applied first, second, …"""
    applied: Bool[Tensor, " n"]


def sample_jitter(
    n: int,
    generator: torch.Generator,
    *,
    probability: float,
    strengths: tuple[float, float, float, float],
) -> Jitter:
    """Draw factors uniform in [max(0, 1 − strength), 1 + strength], hue shifts in ± strength turns,
    and a random order of the four, as in SimCLR (arXiv 2002.05709, appendix A)."""
    strength = torch.tensor(strengths)
    low = torch.cat([(1 - strength[:3]).clamp(min=0), -strength[3:]])
    high = torch.cat([1 + strength[:3], strength[3:]])
    factors = low + (high - low) * torch.rand(n, 4, generator=generator)
    order = torch.rand(n, 4, generator=generator).argsort(1)
    return Jitter(factors, order, sample_mask(n, generator, probability=probability))


def apply_jitter(images: Float[Tensor, "n 3 h w"], jitter: Jitter) -> Float[Tensor, "n 3 h w"]:
    """Change brightness, contrast, saturation and hue of each row in its own order, and clip after
    each change."""
    if len(images) == 1:
        for kind in jitter.order[0].tolist() if jitter.applied[0] else ():
            images = _ADJUST[kind](images, _like(jitter.factors[:, kind], images))
        return images
    for turn in range(4):
        kind = torch.where(jitter.applied, jitter.order[:, turn], -1)
        factor = jitter.factors.gather(1, jitter.order[:, turn, None]).squeeze(1)
        images = _blend_each(images, kind, factor)
        shift, turned = _like(factor[kind == _HUE], images), kind == _HUE
        images = _apply_to_rows(images, turned, lambda rows, shift=shift: adjust_hue(rows, shift))
    return images


def adjust_brightness(
    images: Float[Tensor, "n 3 h w"], factor: Float[Tensor, " n"]
) -> Float[Tensor, "n 3 h w"]:
    """Multiply by the factor. 0 gives black."""
    return _blend(images, factor, None)


def adjust_contrast(
    images: Float[Tensor, "n 3 h w"], factor: Float[Tensor, " n"]
) -> Float[Tensor, "n 3 h w"]:
    """Blend with the mean grey level of the image."""
    return _blend(images, factor, _luma(images).mean((2, 3), keepdim=True))


def adjust_saturation(
    images: Float[Tensor, "n 3 h w"], factor: Float[Tensor, " n"]
) -> Float[Tensor, "n 3 h w"]:
    """Blend with the grey image."""
    return _blend(images, factor, _luma(images))


def _blend(
    images: Float[Tensor, "n 3 h w"], factor: Float[Tensor, " n"], grey: Tensor | None
) -> Float[Tensor, "n 3 h w"]:
    blended = images * _column(factor)
    if grey is not None:
        blended += grey * _column(1 - factor)
    return blended.clamp_(0, 1)


def _blend_each(
    images: Float[Tensor, "n 3 h w"], kind: Int64[Tensor, " n"], factor: Float[Tensor, " n"]
) -> Float[Tensor, "n 3 h w"]:
    """Change brightness, contrast or saturation of each row, as its `kind` says, all rows at once.
    Rows of other kinds do not change."""
    contrast, saturation = kind == _CONTRAST, kind == _SATURATION
    factor = torch.where(contrast | saturation | (kind == _BRIGHTNESS), factor, 1)
    grey = _luma(images)
    mean = grey.mean((2, 3), keepdim=True) * _column(_like(contrast, images))
    grey = grey.mul_(_column(_like(saturation, images))).add_(mean)
    return _blend(images, _like(factor, images), grey)


def adjust_hue(
    images: Float[Tensor, "n 3 h w"], shift: Float[Tensor, " n"]
) -> Float[Tensor, "n 3 h w"]:
    """Turn the hue by `shift` turns in HSV space; value and saturation do not change. The code
    avoids booleans and remainders, for which torch has no vector code on CPUs."""
    red, green, blue = images.unbind(1)
    high = torch.maximum(red, green).maximum(blue)
    chroma = high - torch.minimum(red, green).minimum(blue)
    # The hue in sixths of a turn depends on which channel is the highest. The sign that selects
    # between two cases is 0 if the channel is the highest, else 1.
    blue_highest = (red - green).add_(chroma, alpha=4)
    green_highest = (blue - red).add_(chroma, alpha=2)
    not_red = green_highest.lerp_(blue_highest, (high - green).sign_())
    hue = (green - blue).lerp_(not_red, (high - red).sign_())
    hue.div_(chroma.clamp(min=1e-12)).add_(6 * shift[:, None, None])
    # Back to RGB without cases: channel = value − chroma · (2 − clamp(|k|, 1, 2)). k is the hue's
    # distance, in sixths of a turn within ± 3, from the hue at which the channel is lowest.
    k = hue.unsqueeze(1) + _channels((3.0, 1.0, -1.0), images.device, images.dtype)
    k.sub_((k / 6).round_(), alpha=6).abs_().clamp_(1, 2).sub_(2)
    return torch.addcmul(high.unsqueeze(1), chroma.unsqueeze(1), k)


def apply_grey(
    images: Float[Tensor, "n 3 h w"], grey: Bool[Tensor, " n"]
) -> Float[Tensor, "n 3 h w"]:
    """Replace the three channels by the luma."""
    return _apply_to_rows(images, grey, lambda rows: _luma(rows).expand(-1, 3, -1, -1))


class Blur(NamedTuple):
    """Gaussian blur of `n` rows: σ in pixels, and the rows that are blurred."""

    sigma: Float[Tensor, " n"]
    applied: Bool[Tensor, " n"]


def sample_blur(
    n: int, generator: torch.Generator, *, probability: float, sigma: tuple[float, float]
) -> Blur:
    """Draw σ uniform in `sigma` for each row. (SimCLR's code: one σ for a batch of views.)"""
    sigmas = sigma[0] + (sigma[1] - sigma[0]) * torch.rand(n, generator=generator)
    return Blur(sigmas, sample_mask(n, generator, probability=probability))


def apply_blur(images: Float[Tensor, "n 3 h w"], blur: Blur) -> Float[Tensor, "n 3 h w"]:
    """Blur with a Gaussian of SimCLR's kernel size and reflected edges."""
    sigma, kernel = _like(blur.sigma[blur.applied], images), kernel_px(images.shape[-1])
    return _apply_to_rows(images, blur.applied, lambda rows: _blur(rows, sigma, kernel))


def kernel_px(side_px: int) -> int:
    """Return the width of the blur kernel: a tenth of the image's side, made odd (arXiv 2002.05709,
    appendix A)."""
    return max(3, side_px // 10 // 2 * 2 + 1)


def _blur(
    images: Float[Tensor, "n 3 h w"], sigma: Float[Tensor, " n"], kernel: int
) -> Float[Tensor, "n 3 h w"]:
    height, width = images.shape[2:]
    down = _blur_matrix(sigma, kernel, height)
    across = down if height == width else _blur_matrix(sigma, kernel, width)
    rows, blurred = torch.empty_like(images), torch.empty_like(images)
    for out, source in _bands(height, kernel):
        rows[:, :, out] = down[:, None, out, source] @ images[:, :, source]
    for out, source in _bands(width, kernel):
        blurred[..., out] = rows[..., source] @ across[:, None, out, source].mT
    return blurred


def _blur_matrix(
    sigma: Float[Tensor, " n"], kernel: int, side: int
) -> Float[Tensor, "n side side"]:
    """Return the weights of the source pixels in each output pixel of a line, with reflected
    edges."""
    offset = torch.arange(-(kernel // 2), kernel // 2 + 1, device=sigma.device)
    weights = torch.exp(-0.5 * (offset / sigma[:, None]) ** 2)
    # Denormal numbers are too small to matter and make the product ten times slower.
    weights = weights * (weights > 1e-9)
    weights = (weights / weights.sum(1, keepdim=True))[:, None].expand(-1, side, -1)
    source = (torch.arange(side, device=sigma.device)[:, None] + offset).abs()
    source = (side - 1 - (side - 1 - source).abs()).clamp(min=0)  # a line of one pixel has one
    empty = torch.zeros(len(sigma), side, side, device=sigma.device)
    return empty.scatter_add_(2, source.expand(len(sigma), -1, -1), weights)


def _bands(side: int, kernel: int) -> Iterator[tuple[slice, slice]]:
    """Yield the output pixels of a line in pieces, with the source pixels that each depends on."""
    for start in range(0, side, _BAND_PX):
        stop = min(start + _BAND_PX, side)
        yield slice(start, stop), slice(max(0, start - kernel // 2), stop + kernel // 2)


def normalise(
    images: Float[Tensor, "n 3 h w"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Tensor, "n 3 h w"]:
    """Subtract the channels' `mean` and divide by their `std`."""
    means, stds = (_channels(tuple(v), images.device, images.dtype) for v in (mean, std))
    return (images - means).div_(stds)


@functools.lru_cache(maxsize=64)
def _channels(
    values: tuple[float, ...], device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "3 1 1"]:
    """Return one value per channel. Cached, because a copy to a GPU waits for all earlier work."""
    return torch.tensor(values, device=device, dtype=dtype)[:, None, None]


def _luma(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    red, green, blue = images.split(1, dim=1)
    return (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])


def _column(factor: Float[Tensor, " n"]) -> Float[Tensor, "n 1 1 1"]:
    return factor[:, None, None, None]


def _like(values: Shaped[Tensor, " n"], images: Tensor) -> Float[Tensor, " n"]:
    return values.to(images.device, images.dtype, non_blocking=True)


def _apply_to_rows(
    images: Float[Tensor, "n 3 h w"],
    mask: Bool[Tensor, " n"],
    operation: Callable[[Tensor], Tensor],
) -> Float[Tensor, "n 3 h w"]:
    """Apply the operation to the rows of the mask, which is on the CPU."""
    if mask.all():
        return operation(images)
    if not mask.any():
        return images
    rows = mask.nonzero().squeeze(1).to(images.device, non_blocking=True)
    return images.index_copy(0, rows, operation(images[rows]))


_ADJUST = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
