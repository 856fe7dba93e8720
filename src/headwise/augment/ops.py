"""The other batched operations, two functions each: *sample* the parameters, *apply* them.

Images are floats in [0, 1], `[n 3 h w]`; every row has parameters of its own. Parameters are drawn
on the CPU, so that they are the same on every device, and so that rows can be grouped by what
happens to them without the device and the host waiting for each other.
"""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

# Luma weights of ITU-R BT.601, as Pillow and torchvision use them.
_LUMA = (0.2989, 0.587, 0.114)

# Kinds of colour jitter, in the order of its factors.
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)

# A blur matrix is mostly zeros: of large images it is multiplied in bands.
_BAND_PX = 112


def sample_mask(n: int, generator: torch.Generator, *, probability: float) -> Bool[Tensor, " n"]:
    """Which rows an operation applies to."""
    return torch.rand(n, generator=generator) < probability


def apply_flip(
    images: Float[Tensor, "n 3 h w"], flipped: Bool[Tensor, " n"]
) -> Float[Tensor, "n 3 h w"]:
    """Mirror left and right."""
    return _on_rows(images, flipped, lambda rows: rows.flip(-1))


class Jitter(NamedTuple):
    """Colour jitter of `n` rows: factors (1, or 0 for the hue, changes nothing) and their order."""

    factors: Float[Tensor, "n 4"]
    """Brightness, contrast, saturation (factors) and hue (a shift in turns)."""
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
    """Factors uniform in [max(0, 1 − strength), 1 + strength], hue shifts in ± strength turns, and
    a random order of the four, as in SimCLR (arXiv 2002.05709, appendix A)."""
    strength = torch.tensor(strengths)
    low = torch.cat([(1 - strength[:3]).clamp(min=0), -strength[3:]])
    high = torch.cat([1 + strength[:3], strength[3:]])
    factors = low + (high - low) * torch.rand(n, 4, generator=generator)
    order = torch.rand(n, 4, generator=generator).argsort(1)
    return Jitter(factors, order, sample_mask(n, generator, probability=probability))


def apply_jitter(images: Float[Tensor, "n 3 h w"], jitter: Jitter) -> Float[Tensor, "n 3 h w"]:
    """Brightness, contrast, saturation and hue, each row in its own order, clipped after each."""
    if len(images) == 1:
        for kind in jitter.order[0].tolist() if jitter.applied[0] else ():
            images = _ADJUST[kind](images, _on(jitter.factors[:, kind], images))
        return images
    for turn in range(4):
        kind = torch.where(jitter.applied, jitter.order[:, turn], -1)
        factor = jitter.factors.gather(1, jitter.order[:, turn, None]).squeeze(1)
        images = _blend_each(images, kind, factor)
        shift = _on(factor[kind == _HUE], images)
        images = _on_rows(images, kind == _HUE, lambda rows, shift=shift: adjust_hue(rows, shift))
    return images


def adjust_brightness(
    images: Float[Tensor, "n 3 h w"], factor: Float[Tensor, " n"]
) -> Float[Tensor, "n 3 h w"]:
    """Scale towards black (0) or beyond (> 1)."""
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
    """Brightness, contrast or saturation, as each row's `kind` says, all rows at once; a row of
    another kind stays as it is."""
    contrast, saturation = kind == _CONTRAST, kind == _SATURATION
    factor = torch.where(contrast | saturation | (kind == _BRIGHTNESS), factor, 1)
    grey = _luma(images)
    mean = grey.mean((2, 3), keepdim=True) * _column(_on(contrast, images))
    grey = grey.mul_(_column(_on(saturation, images))).add_(mean)
    return _blend(images, _on(factor, images), grey)


def adjust_hue(
    images: Float[Tensor, "n 3 h w"], shift: Float[Tensor, " n"]
) -> Float[Tensor, "n 3 h w"]:
    """Turn the hue by `shift` turns in HSV space; value and saturation stay exactly.

    Without booleans and remainders, for which torch has no vector code on CPUs.
    """
    red, green, blue = images.unbind(1)
    high = torch.maximum(red, green).maximum(blue)
    chroma = high - torch.minimum(red, green).minimum(blue)
    # The hue in sixths of a turn, from whichever channel is the highest: where that is red (then
    # green), the weight is 0, elsewhere 1.
    of_blue = (red - green).add_(chroma, alpha=4)
    of_green = (blue - red).add_(chroma, alpha=2)
    below_green = of_green.lerp_(of_blue, (high - green).sign_())
    hue = (green - blue).lerp_(below_green, (high - red).sign_())
    hue.div_(chroma.clamp(min=1e-12)).add_(6 * shift[:, None, None])
    # Back to RGB without cases: channel = value − chroma · (2 − clamp(|k|, 1, 2)), where k counts
    # sixths of a turn from the middle of the channel's valley, in ± 3.
    k = hue.unsqueeze(1) + _channels((3.0, 1.0, -1.0), images.device, images.dtype)
    k.sub_((k / 6).round_(), alpha=6).abs_().clamp_(1, 2).sub_(2)
    return torch.addcmul(high.unsqueeze(1), chroma.unsqueeze(1), k)


def apply_grey(
    images: Float[Tensor, "n 3 h w"], grey: Bool[Tensor, " n"]
) -> Float[Tensor, "n 3 h w"]:
    """Three equal channels of luma."""
    return _on_rows(images, grey, lambda rows: _luma(rows).expand(-1, 3, -1, -1))


class Blur(NamedTuple):
    """Gaussian blur of `n` rows: σ in pixels, and which rows."""

    sigma: Float[Tensor, " n"]
    applied: Bool[Tensor, " n"]


def sample_blur(
    n: int, generator: torch.Generator, *, probability: float, sigma: tuple[float, float]
) -> Blur:
    """σ uniform in `sigma`. (SimCLR's code draws one σ for a whole view batch; this, one a row.)"""
    sigmas = sigma[0] + (sigma[1] - sigma[0]) * torch.rand(n, generator=generator)
    return Blur(sigmas, sample_mask(n, generator, probability=probability))


def apply_blur(images: Float[Tensor, "n 3 h w"], blur: Blur) -> Float[Tensor, "n 3 h w"]:
    """Gaussian blur, edges reflected, with SimCLR's kernel: a tenth of the side, made odd."""
    sigma, kernel = _on(blur.sigma[blur.applied], images), kernel_px(images.shape[-1])
    return _on_rows(images, blur.applied, lambda rows: _blur(rows, sigma, kernel))


def kernel_px(side_px: int) -> int:
    """Width of the blur kernel for an image of this side (arXiv 2002.05709, appendix A)."""
    return max(3, side_px // 10 // 2 * 2 + 1)


def _blur(
    images: Float[Tensor, "n 3 h w"], sigma: Float[Tensor, " n"], kernel: int
) -> Float[Tensor, "n 3 h w"]:
    height, width = images.shape[2:]
    down = _blur_matrix(sigma, kernel, height)
    across = down if height == width else _blur_matrix(sigma, kernel, width)
    rows, blurred = torch.empty_like(images), torch.empty_like(images)
    for out, taken in _bands(height, kernel):
        rows[:, :, out] = down[:, None, out, taken] @ images[:, :, taken]
    for out, taken in _bands(width, kernel):
        blurred[..., out] = rows[..., taken] @ across[:, None, out, taken].mT
    return blurred


def _blur_matrix(
    sigma: Float[Tensor, " n"], kernel: int, side: int
) -> Float[Tensor, "n side side"]:
    """Weights of the source pixels in each output pixel of a line; beyond the edge it reflects."""
    tap = torch.arange(-(kernel // 2), kernel // 2 + 1, device=sigma.device)
    weights = torch.exp(-0.5 * (tap / sigma[:, None]) ** 2)
    # Denormal numbers, too small to matter, would make the product ten times slower.
    weights = weights * (weights > 1e-9)
    weights = (weights / weights.sum(1, keepdim=True))[:, None].expand(-1, side, -1)
    source = (torch.arange(side, device=sigma.device)[:, None] + tap).abs()
    source = side - 1 - (side - 1 - source).abs()
    empty = torch.zeros(len(sigma), side, side, device=sigma.device)
    return empty.scatter_add_(2, source.expand(len(sigma), -1, -1), weights)


def _bands(side: int, kernel: int) -> Iterator[tuple[slice, slice]]:
    """Output pixels of a line in pieces, and the source pixels that each piece depends on: most of
    a blur matrix is zero."""
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
    """One value a channel; kept, since each copy to a GPU would wait for all work before it."""
    return torch.tensor(values, device=device, dtype=dtype)[:, None, None]


def _luma(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    red, green, blue = images.split(1, dim=1)
    return (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])


def _column(factor: Float[Tensor, " n"]) -> Float[Tensor, "n 1 1 1"]:
    return factor[:, None, None, None]


def _on(values: Shaped[Tensor, " n"], images: Tensor) -> Float[Tensor, " n"]:
    return values.to(images.device, images.dtype, non_blocking=True)


def _on_rows(
    images: Float[Tensor, "n 3 h w"],
    mask: Bool[Tensor, " n"],
    operation: Callable[[Tensor], Tensor],
) -> Float[Tensor, "n 3 h w"]:
    """The operation on the rows of the mask, which is on the CPU."""
    if mask.all():
        return operation(images)
    if not mask.any():
        return images
    rows = mask.nonzero().squeeze(1).to(images.device, non_blocking=True)
    return images.index_copy(0, rows, operation(images[rows]))


_ADJUST = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
