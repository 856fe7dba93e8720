"""The other batched operations, two functions each: *sample* the parameters, *apply* them.

Images are floats in [0, 1], `[n 3 h w]`; every row has parameters of its own. Parameters are drawn
on the CPU, so that they are the same on every device, and so that rows can be grouped by what
happens to them without the device and the host waiting for each other.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

# Luma weights of ITU-R BT.601, as Pillow and torchvision use them.
_LUMA = (0.2989, 0.587, 0.114)


def sample_mask(n: int, generator: torch.Generator, *, probability: float) -> Bool[Tensor, " n"]:
    """Which rows an operation applies to."""
    return torch.rand(n, generator=generator) < probability


def apply_flip(
    images: Float[Tensor, "n 3 h w"], flipped: Bool[Tensor, " n"]
) -> Float[Tensor, "n 3 h w"]:
    """Mirror left and right."""
    rows = _rows(flipped, images)
    return images.index_copy(0, rows, images[rows].flip(-1))


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
    images = images.clone()
    factors = jitter.factors.to(images.device, non_blocking=True)
    adjust = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
    for turn in range(4):
        for kind in range(4):
            rows = _rows(jitter.applied & (jitter.order[:, turn] == kind), images)
            if len(rows):
                images[rows] = adjust[kind](images[rows], factors[rows, kind])
    return images


def adjust_brightness(
    images: Float[Tensor, "n 3 h w"], factor: Float[Tensor, " n"]
) -> Float[Tensor, "n 3 h w"]:
    """Scale towards black (0) or beyond (> 1)."""
    return (images * _column(factor)).clamp_(0, 1)


def adjust_contrast(
    images: Float[Tensor, "n 3 h w"], factor: Float[Tensor, " n"]
) -> Float[Tensor, "n 3 h w"]:
    """Blend with the mean grey level of the image."""
    mean = _luma(images).mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, _column(factor)).clamp_(0, 1)


def adjust_saturation(
    images: Float[Tensor, "n 3 h w"], factor: Float[Tensor, " n"]
) -> Float[Tensor, "n 3 h w"]:
    """Blend with the grey image."""
    return torch.lerp(_luma(images), images, _column(factor)).clamp_(0, 1)


def adjust_hue(
    images: Float[Tensor, "n 3 h w"], shift: Float[Tensor, " n"]
) -> Float[Tensor, "n 3 h w"]:
    """Turn the hue by `shift` turns in HSV space; value and saturation stay exactly."""
    red, green, blue = images.unbind(1)
    high, low = images.amax(1), images.amin(1)
    chroma = high - low
    divisor = torch.where(chroma == 0, torch.ones_like(chroma), chroma)
    # The hue in sixths of a turn, from whichever channel is the highest.
    hue = torch.where(
        high == red,
        (green - blue) / divisor,
        torch.where(high == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    hue = hue + 6 * shift[:, None, None]
    # Back to RGB without cases: channel = value − chroma · clamp(min(k, 4 − k), 0, 1).
    offset = torch.tensor([5.0, 3.0, 1.0], device=images.device, dtype=images.dtype)
    k = (hue.unsqueeze(1) + offset[:, None, None]).remainder_(6)
    depth = torch.minimum(k, 4 - k).clamp_(0, 1)
    return high.unsqueeze(1) - chroma.unsqueeze(1) * depth


def apply_grey(
    images: Float[Tensor, "n 3 h w"], grey: Bool[Tensor, " n"]
) -> Float[Tensor, "n 3 h w"]:
    """Three equal channels of luma."""
    rows = _rows(grey, images)
    return images.index_copy(0, rows, _luma(images[rows]).expand(-1, 3, -1, -1))


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
    rows = _rows(blur.applied, images)
    if not len(rows):
        return images
    sigma = blur.sigma.to(images.device, non_blocking=True)[rows]
    return images.index_copy(0, rows, _blur(images[rows], sigma, kernel_px(images.shape[-1])))


def kernel_px(side_px: int) -> int:
    """Width of the blur kernel for an image of this side (arXiv 2002.05709, appendix A)."""
    return max(3, side_px // 10 // 2 * 2 + 1)


def _blur(
    images: Float[Tensor, "n 3 h w"], sigma: Float[Tensor, " n"], kernel: int
) -> Float[Tensor, "n 3 h w"]:
    n, channels, height, width = images.shape
    half = kernel // 2
    place = torch.arange(-half, half + 1, device=images.device)
    weights = torch.exp(-0.5 * (place / sigma[:, None]) ** 2)
    weights = (weights / weights.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    # One group a row and channel: each is convolved with its row's kernel, first along x, then y.
    flat = F.pad(images, (half, half, half, half), mode="reflect")
    flat = flat.reshape(1, n * channels, height + 2 * half, width + 2 * half)
    flat = F.conv2d(flat, weights[:, None, None, :], groups=n * channels)
    flat = F.conv2d(flat, weights[:, None, :, None], groups=n * channels)
    return flat.reshape(n, channels, height, width)


def normalise(
    images: Float[Tensor, "n 3 h w"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Tensor, "n 3 h w"]:
    """Subtract the channels' `mean` and divide by their `std`."""
    means = torch.tensor(mean, device=images.device, dtype=images.dtype)[:, None, None]
    stds = torch.tensor(std, device=images.device, dtype=images.dtype)[:, None, None]
    return (images - means) / stds


def _luma(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    red, green, blue = images.split(1, dim=1)
    return red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2]


def _column(factor: Float[Tensor, " n"]) -> Float[Tensor, "n 1 1 1"]:
    return factor[:, None, None, None]


def _rows(mask: Bool[Tensor, " n"], images: Tensor) -> Int64[Tensor, " m"]:
    return mask.nonzero().squeeze(1).to(images.device, non_blocking=True)
