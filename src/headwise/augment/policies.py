"""Policies: which operators make the two views of an image, and with which settings."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import UInt8
from torch import Tensor

from headwise.augment.own_op import try_own
from headwise.config import check_fields, resolved_as
from headwise.data import Images, ResidentImages
from headwise.errors import UserError
from headwise.own_code import OwnCode

Shipped = Literal["crop", "flip", "colour", "grey", "blur", "cutout", "rotation", "noise", "sobel"]
Operator = Shipped | Literal["own"]

SIMCLR: tuple[Operator, ...] = ("crop", "flip", "colour", "grey", "blur")
"""SimCLR's operators (arXiv 2002.05709, appendix A), in its order."""

PROBABILITIES: dict[Operator, str] = {
    "flip": "flip",
    "colour": "jitter",
    "grey": "grey",
    "blur": "blur",
    "cutout": "cutout",
    "noise": "noise",
    "sobel": "sobel",
}
"""The setting that is an operator's probability. Every view is cropped, and turned by 0 to 3 right
angles."""

# Up to this side, images are small: by default no blur, colour at half strength, and a small stem.
SMALL_PX = 64

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """The operators of each view and their settings; by default those of SimCLR."""

    ops: tuple[Operator, ...] | None = None
    """The operators of both views, in this order; crop, where it is one of them, is the first.
    None: SimCLR's, which are crop, flip, colour, grey and blur, and then own, if it is given."""
    ops_second: tuple[Operator, ...] | None = None
    """The operators of each image's second view, if they are others. None: those of
    --augment.ops."""
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
    """Probability that a view is blurred. None: 0 for views up to 64 px, if --augment.ops does not
    name blur, otherwise 0.5."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Smallest and largest σ of the Gaussian blur, in pixels."""
    cutout: float = 0.5
    """Probability that a view with cutout among its operators gets a grey square."""
    cutout_side: float = 0.5
    """Side of the square of cutout, as a fraction of the view's side."""
    noise: float = 0.5
    """Probability that a view with noise among its operators gets Gaussian noise."""
    noise_sigma: float = 0.1
    """σ of the Gaussian noise, where 1 is white."""
    sobel: float = 0.5
    """Probability that a view with sobel among its operators is Sobel-filtered."""
    mean: tuple[float, float, float] | None = None
    """Means that are subtracted from the red, green and blue channels; 1 is white. None: those of
    the training images, or ImageNet's if the images stay files."""
    std: tuple[float, float, float] | None = None
    """Standard deviations that divide the channels. None: those of the training images, or
    ImageNet's if the images stay files."""
    in_c: bool = True
    """On a CPU, make the views with compiled C code if it was built."""
    own: OwnCode | None = None
    """The operator own: a function of yours, FILE:FUNCTION, that takes some views, a generator of
    random numbers and its settings, and returns the views (docs/own.md)."""

    def __post_init__(self) -> None:
        check_fields(self)
        _check_operators("ops", self.ops)
        _check_operators("ops_second", self.ops_second)
        named = "own" in (*(self.ops or ()), *(self.ops_second or ()))
        if named and self.own is None:
            raise UserError(
                "augment.ops own needs a function; got none; give --augment FILE:function"
            )
        if self.own is not None and self.ops is not None and not named:
            raise UserError(
                f"augment.ops must have own, for {self.own.words}; got {' '.join(self.ops)}; add it"
            )
        for name in PROBABILITIES.values():
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
        for name in ("cutout_side", "noise_sigma"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UserError(f"augment.{name} must be positive; got {getattr(self, name)}")
        if self.std is not None and min(self.std) <= 0:
            raise UserError(f"augment.std must be positive; got {self.std}")
        if self.size is not None and self.size < 8:
            raise UserError(f"augment.size must be at least 8 px; got {self.size}")


def _check_operators(name: str, ops: tuple[Operator, ...] | None) -> None:
    given = " ".join(ops or ())
    if len(set(ops or ())) < len(ops or ()):
        raise UserError(f"augment.{name} must have each operator once; got {given}")
    if "crop" in (ops or ())[1:]:
        raise UserError(
            f"augment.{name} must have crop first, because images are cut when they are read; "
            f"got {given}"
        )


@dataclass(frozen=True, kw_only=True)
class ResolvedAugment(AugmentConfig):
    """An `AugmentConfig` in which nothing is left open."""

    # The default is that of runs from before operators could be chosen.
    ops: tuple[Operator, ...] = SIMCLR
    size: int
    strength: float
    blur: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def branches(self) -> tuple[tuple[Operator, ...], tuple[Operator, ...]]:
        """The operators of the first and of the second view."""
        return self.ops, self.ops if self.ops_second is None else self.ops_second

    def uses(self, op: Operator) -> bool:
        """Whether some views are changed by this operator."""
        idle = op in PROBABILITIES and vars(self)[PROBABILITIES[op]] == 0
        idle = idle or (op == "colour" and self.strength == 0)
        return not idle and any(op in branch for branch in self.branches)


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
    if "blur" in (config.ops or ()) or "blur" in (config.ops_second or ()):
        blur = 0.5
    ops = config.ops
    if config.own is not None:
        try_own(config.own, size)
    if ops is None:
        ops = SIMCLR if config.own is None else (*SIMCLR, "own")
    decided = {
        "ops": ops,
        "ops_second": None if config.ops_second == ops else config.ops_second,
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
