"""The operators of SimCLR's studies that its own policy does not have: rotation, Gaussian noise,
Sobel and cutout, the rest of figure 4 (arXiv 2002.05709).

As in `ops`, *sample* draws each row's parameters on the CPU and *apply* uses them. Sobel takes the
rows that `ops.sample_mask` draws. Images are floats in [0, 1].
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from headwise.augment.ops import sample_mask


def sample_rotation(n: int, generator: torch.Generator) -> Int64[Tensor, " n"]:
    """Draw 0 to 3 quarter turns with equal probability."""
    return torch.randint(4, (n,), generator=generator)


def apply_rotation(
    images: Float[Tensor, "n 3 s s"], turns: Int64[Tensor, " n"]
) -> Float[Tensor, "n 3 s s"]:
    """Turn each row by its number of right angles, counter-clockwise."""
    for turn in (1, 2, 3):
        images = _where(turns == turn, images.rot90(turn, (2, 3)), images)
    return images


class Noise(NamedTuple):
    """Gaussian noise of `n` rows: its standard deviation (white is 1), the standard normal values,
    and the rows that get noise."""

    sigma: Float[Tensor, " n"]
    grain: Float[Tensor, "n 3 h w"]
    applied: Bool[Tensor, " n"]


def sample_noise(
    n: int,
    generator: torch.Generator,
    *,
    probability: float,
    sigma: tuple[float, float],
    size: tuple[int, int],
) -> Noise:
    """Draw σ uniform in `sigma`, and noise for images of `size` (height and width in pixels)."""
    sigmas = sigma[0] + (sigma[1] - sigma[0]) * torch.rand(n, generator=generator)
    applied = sample_mask(n, generator, probability=probability)
    return Noise(sigmas, torch.randn(n, 3, *size, generator=generator), applied)


def apply_noise(images: Float[Tensor, "n 3 h w"], noise: Noise) -> Float[Tensor, "n 3 h w"]:
    """Add independent noise to every channel of every pixel, and clip."""
    sigma, grain = (part.to(images.device, images.dtype) for part in noise[:2])
    noisy = (images + sigma[:, None, None, None] * grain).clamp_(0, 1)
    return _where(noise.applied, noisy, images)


class Grain(NamedTuple):
    """Gaussian noise of `n` rows as seeds, for batches whose noise would fill the memory: the seed
    of each row's noise, and the rows that get noise."""

    seed: Int64[Tensor, " n"]
    applied: Bool[Tensor, " n"]


def sample_grain(n: int, generator: torch.Generator, *, probability: float) -> Grain:
    """Draw a seed for every row."""
    seeds = torch.randint(2**62, (n,), generator=generator)
    return Grain(seeds, sample_mask(n, generator, probability=probability))


def apply_grain(
    images: Float[Tensor, "n 3 h w"], grain: Grain, sigma: float
) -> Float[Tensor, "n 3 h w"]:
    """Add to each row of the mask the noise of its seed, made on the CPU: on every device the
    same."""
    noise = torch.zeros(images.shape)
    for row in grain.applied.nonzero().flatten().tolist():
        generator = torch.Generator().manual_seed(int(grain.seed[row]))
        noise[row] = torch.randn(images.shape[1:], generator=generator)
    return apply_noise(images, Noise(torch.full((len(images),), sigma), noise, grain.applied))


def apply_sobel(
    images: Float[Tensor, "n 3 h w"], applied: Bool[Tensor, " n"]
) -> Float[Tensor, "n 3 h w"]:
    """Replace each channel by the length of its Sobel gradient, with repeated edge pixels. The
    kernel, a quarter of the usual, gives 1 at a straight step from black to white, the maximum."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    down = padded[:, :, 2:] - padded[:, :, :-2]
    down = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    across = padded[..., 2:] - padded[..., :-2]
    across = across[:, :, :-2] + 2 * across[:, :, 1:-1] + across[:, :, 2:]
    return _where(applied, (torch.hypot(down, across) / 4).clamp_(max=1), images)


class Cutout(NamedTuple):
    """A square hole in each of `n` rows, as fractions of the image: its centre (down, right), its
    side, and the rows that get a hole."""

    centre: Float[Tensor, "n 2"]
    side: Float[Tensor, " n"]
    applied: Bool[Tensor, " n"]


def sample_cutout(
    n: int, generator: torch.Generator, *, probability: float, side: tuple[float, float]
) -> Cutout:
    """Draw sides uniform in `side` and centres anywhere in the image, so a hole may extend beyond
    the image (DeVries & Taylor, arXiv 1708.04552)."""
    centre = torch.rand(n, 2, generator=generator)
    sides = side[0] + (side[1] - side[0]) * torch.rand(n, generator=generator)
    return Cutout(centre, sides, sample_mask(n, generator, probability=probability))


def apply_cutout(
    images: Float[Tensor, "n 3 h w"], cutout: Cutout, *, fill: float = 0.5
) -> Float[Tensor, "n 3 h w"]:
    """Fill the pixels whose centres lie in the hole, by default with middle grey. DeVries & Taylor
    fill with the mean, which is near."""
    inside = []
    for axis, length in enumerate(images.shape[2:]):
        pixel = (torch.arange(length) + 0.5) / length
        inside.append((pixel - cutout.centre[:, axis, None]).abs() < cutout.side[:, None] / 2)
    hole = inside[0][:, :, None] & inside[1][:, None, :] & cutout.applied[:, None, None]
    return images.masked_fill(hole[:, None].to(images.device), fill)


def _where(
    mask: Bool[Tensor, " n"], changed: Float[Tensor, "n 3 h w"], images: Float[Tensor, "n 3 h w"]
) -> Float[Tensor, "n 3 h w"]:
    return torch.where(mask.to(images.device)[:, None, None, None], changed, images)
