"""Policies: which operations make a batch of views from a batch of images."""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from headwise import rng
from headwise.augment import ops
from headwise.augment.crop import apply_crop, sample_crop
from headwise.augment.ops import Blur, Jitter
from headwise.augment.views_in_c import library, views_in_c
from headwise.config import check_fields, resolved_as
from headwise.data import Images, ResidentImages
from headwise.errors import UserError
from headwise.runtime import hardware

# Up to this side, images are small: by default no blur, colour at half strength, and a small stem.
SMALL_PX = 64

# Number of floats that pass through all operations together: 1 MiB.
_CHUNK_VALUES = 2**18

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random-resized crop, flip, colour jitter, grey and blur: the SimCLR family of policies."""

    size: int | None = None
    """Side of the views in pixels. None: the images' own side, or 224 for images of mixed sizes."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest area of the crop, as a fraction of the image."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest aspect ratio of the crop, width over height."""
    flip: float = 0.5
    """Probability that a view is mirrored."""
    jitter: float = 0.8
    """Probability that a view's colours are jittered."""
    strength: float | None = None
    """The strength of colour jitter; it multiplies --augment.colour. None: 0.5 for views up to 64
    px (SimCLR on CIFAR), otherwise 1 (SimCLR on ImageNet)."""
    colour: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 0.2)
    """Largest change of brightness, contrast, saturation and hue at strength 1. Hue is in turns of
    the colour circle."""
    grey: float = 0.2
    """Probability that a view is made grey."""
    blur: float | None = None
    """Probability that a view is blurred. None: 0 for views up to 64 px, otherwise 0.5."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Smallest and largest σ of the Gaussian blur, in pixels."""
    mean: tuple[float, float, float] | None = None
    """Means that are subtracted from the red, green and blue channels; 1 is white. None: those of
    the training images, or ImageNet's if the images stay files."""
    std: tuple[float, float, float] | None = None
    """Standard deviations that divide the channels. None: those of the training images, or
    ImageNet's if the images stay files."""
    in_c: bool = True
    """On a CPU, make the views with compiled C code if it was built."""

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("flip", "jitter", "grey", "blur"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"augment.{name} must be a probability in [0, 1]; got {value}")
        for name in ("crop_scale", "crop_ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise UserError(
                    f"augment.{name} must be two positive numbers, the lower first; "
                    f"got {low} {high}"
                )
        if self.crop_scale[1] > 1:
            raise UserError(f"augment.crop_scale must be at most 1; got {self.crop_scale[1]}")
        if self.strength is not None and self.strength < 0:
            raise UserError(f"augment.strength must not be negative; got {self.strength}")
        if self.strength is not None and self.strength * self.colour[3] > 0.5:
            raise UserError(
                "augment.strength times the hue's colour must be at most 0.5, half a turn; "
                f"got {self.strength} × {self.colour[3]}"
            )
        if self.std is not None and min(self.std) <= 0:
            raise UserError(f"augment.std must be positive; got {self.std}")
        if self.size is not None and self.size < 8:
            raise UserError(f"augment.size must be at least 8 px; got {self.size}")


@dataclass(frozen=True, kw_only=True)
class ResolvedAugment(AugmentConfig):
    """An `AugmentConfig` in which nothing is left open."""

    size: int
    strength: float
    blur: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def simclr(strength: float = 1.0) -> AugmentConfig:
    """Return SimCLR's policy for ImageNet (arXiv 2002.05709, appendix A)."""
    return AugmentConfig(strength=strength, blur=0.5)


def simclr_small(strength: float = 0.5) -> AugmentConfig:
    """Return SimCLR's policy for CIFAR (arXiv 2002.05709, B.9): no blur, half the colour."""
    return AugmentConfig(strength=strength, blur=0.0)


def resolve(config: AugmentConfig, images: Images) -> ResolvedAugment:
    """The config with nothing left open, for these training images."""
    if isinstance(images, ResidentImages):
        image_px = min(images.pixels.shape[-2:])
        mean, std = _channel_statistics(images.pixels)
    else:
        image_px, mean, std = 224, IMAGENET_MEAN, IMAGENET_STD
    size = config.size or image_px
    strength, blur = (0.5, 0.0) if size <= SMALL_PX else (1.0, 0.5)
    decided = {
        "size": size,
        "strength": strength if config.strength is None else config.strength,
        "blur": blur if config.blur is None else config.blur,
        "mean": config.mean or mean,
        "std": config.std or std,
    }
    return resolved_as(ResolvedAugment, config, decided)


def whole_images(
    size: int, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> ResolvedAugment:
    """The config for whole images, normalised: no view is drawn from it."""
    return ResolvedAugment(size=size, strength=0.0, blur=0.0, mean=mean, std=std)


def unnormalised(config: ResolvedAugment, size: int) -> ResolvedAugment:
    """Return the config with views of `size` px that stay in [0, 1]."""
    return dataclasses.replace(config, size=size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def _channel_statistics(
    pixels: UInt8[Tensor, "n 3 h w"],
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return the mean and standard deviation of each channel, from exact counts. White is 1."""
    means, stds = [], []
    level = torch.arange(256, dtype=torch.float64) / 255
    for channel in range(3):
        counts = torch.bincount(pixels[:, channel].reshape(-1).cpu(), minlength=256).double()
        share = counts / counts.sum()
        mean = (share * level).sum()
        std = (share * (level - mean) ** 2).sum().sqrt()
        means.append(round(mean.item(), 6))
        # The deviation of a constant channel is 0. Dividing by 1 instead keeps it finite.
        stds.append(round(std.item(), 6) or 1.0)
    return (means[0], means[1], means[2]), (stds[0], stds[1], stds[2])


class ViewParameters(NamedTuple):
    """All random parameters of a batch of views. Rows `i` and `i + n` belong to image `i`."""

    crop: Float[Tensor, "m tries 4"]
    flip: Bool[Tensor, " m"]
    jitter: Jitter
    grey: Bool[Tensor, " m"]
    blur: Blur

    def rows(self, index: Int64[Tensor, " k"] | slice) -> "ViewParameters":
        """Return the parameters of some of the views."""
        return ViewParameters(
            self.crop[index],
            self.flip[index],
            Jitter(*(part[index] for part in self.jitter)),
            self.grey[index],
            Blur(*(part[index] for part in self.blur)),
        )


def sample_views(config: ResolvedAugment, n: int, seed: int, step: int) -> ViewParameters:
    """Draw the parameters of two views of each of `n` images at this step. Every operation has its
    own generator, so changing one does not change the draws of the others."""
    crop, flip, jitter, grey, blur = (
        rng.generator(seed, "augment", step, name)
        for name in ("crop", "flip", "jitter", "grey", "blur")
    )
    brightness, contrast, saturation, hue = (config.strength * value for value in config.colour)
    return ViewParameters(
        sample_crop(2 * n, crop, scale=config.crop_scale, ratio=config.crop_ratio),
        ops.sample_mask(2 * n, flip, probability=config.flip),
        ops.sample_jitter(
            2 * n,
            jitter,
            probability=config.jitter,
            strengths=(brightness, contrast, saturation, hue),
        ),
        ops.sample_mask(2 * n, grey, probability=config.grey),
        ops.sample_blur(2 * n, blur, probability=config.blur, sigma=config.blur_sigma),
    )


def make_views(
    config: ResolvedAugment,
    images: UInt8[Tensor, "n 3 height width"],
    boxes: Int64[Tensor, "m 4"] | None,
    parameters: ViewParameters,
) -> Float[Tensor, "m 3 size size"]:
    """Return normalised views, in channels_last, of images of one size. Box `j` is cut from image
    `j mod n`. Without boxes the images are already crops, and `m = n`.

    On the CPU a few views at a time pass through all operations, so that intermediate results stay
    in the processor's cache.
    """
    size, m, n = config.size, len(parameters.crop), len(images)
    if boxes is None:
        boxes = torch.tensor([0, 0, size, size]).expand(m, 4)
    memory_format = torch.channels_last
    views = torch.empty(m, 3, size, size, device=images.device, memory_format=memory_format)
    on_cpu = images.device.type == "cpu"
    in_c = config.in_c and on_cpu and library() is not None

    def make(rows: slice) -> None:
        pixels = images[rows.start % n : (rows.stop - 1) % n + 1]
        part = parameters.rows(rows)
        if in_c:
            views_in_c(
                pixels,
                boxes[rows],
                flipped=part.flip,
                jitter=part.jitter,
                grey=part.grey,
                blur=part.blur,
                mean=config.mean,
                std=config.std,
                views=views[rows],
            )
        else:
            views[rows] = finish_views(config, apply_crop(pixels, boxes[rows], size), part)

    chunk = max(1, _CHUNK_VALUES // (3 * size**2)) if on_cpu else n
    starts = [i for view in range(0, m, n) for i in range(view, view + n, chunk)]
    hardware.on_threads(make, [slice(i, min(i + chunk, i - i % n + n)) for i in starts])
    return views


def finish_views(
    config: ResolvedAugment, crops: Float[Tensor, "m 3 size size"], parameters: ViewParameters
) -> Float[Tensor, "m 3 size size"]:
    """Apply all operations after the crop: flip, jitter, grey, blur, normalise."""
    views = ops.apply_flip(crops, parameters.flip)
    views = ops.apply_jitter(views, parameters.jitter)
    views = ops.apply_grey(views, parameters.grey)
    views = ops.apply_blur(views, parameters.blur)
    return ops.normalise(views, config.mean, config.std)
