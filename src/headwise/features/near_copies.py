"""How similar `h` of an image and of its near copies is: the threshold that tells near copies."""

import io
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image, ImageEnhance
from torch import Tensor

from headwise import rng
from headwise.augment import ResolvedAugment, normalised
from headwise.augment.decoding import central_square
from headwise.data import Images, ResidentImages

DEFAULT_THRESHOLD = 0.95
_IMAGES, _BATCH, _THUMBNAIL_PX = 100, 32, 16
_QUANTILE = 0.05
COPIES = "JPEG of quality 40, half the size, central 90 %, 20 % brighter"
"""The near copies that are made of an image."""

Encode = Callable[[Float[Tensor, "b 3 s s"]], Float[Tensor, "b p"]]
"""`h` of normalised images."""


class Calibration(NamedTuple):
    """What 95 % of the near copies of sampled images reach, and how well it tells them from other
    images. `h` alone does not: similar images of one class are as close."""

    threshold: float
    """The cosine of `h`."""
    correlation: float
    """The correlation of the pixels at 16 px."""
    images: int
    """How many were sampled."""
    others: float
    """The fraction of the sampled images that have another sampled image above both."""

    def words(self) -> str:
        """Say where the thresholds come from."""
        return (
            f"and correlation of the pixels at {_THUMBNAIL_PX} px of at least "
            f"{self.correlation:.3f}; 95 % of near copies of {self.images} images ({COPIES}) reach "
            f"each; {self.others:.0%} of these images have another of them above both"
        )


@torch.no_grad()
def calibrate(
    encode: Encode, images: Images, config: ResolvedAugment, seed: int = 0
) -> Calibration:
    """Return the thresholds for an encoder, from near copies of some of the images."""
    order = torch.randperm(len(images), generator=rng.generator(seed, "near copies"))
    opened = [found for i in order[:_IMAGES].tolist() if (found := picture(images, i))]
    sets = [opened]
    for make in (_compressed, _smaller, _cut, _brighter):
        sets.append([make(image) for image in opened])
    alike, level = [], []
    for rows in (
        [_encoded(encode, one, config) for one in sets],
        [torch.stack([thumbnail(image) for image in one]) for one in sets],
    ):
        same = torch.stack([(rows[0] * copy).sum(1) for copy in rows[1:]])
        level.append(float(same.flatten().quantile(_QUANTILE)))
        alike.append((rows[0] @ rows[0].T).fill_diagonal_(-1) >= level[-1])
    others = (alike[0] & alike[1]).any(1)
    cosine, correlation = level
    return Calibration(cosine, correlation, len(opened), float(others.float().mean()))


def thumbnail(image: Image.Image) -> Float[Tensor, " q"]:
    """Return the pixels at 16 px, as a vector whose product with another is their correlation."""
    small = central_square(image, _THUMBNAIL_PX).float().flatten()
    return F.normalize(small - small.mean(), dim=0)


def picture(images: Images, i: int) -> Image.Image | None:
    """Return one image, upright and RGB; None where it cannot be read."""
    if isinstance(images, ResidentImages):
        return Image.fromarray(images.pixels[i].permute(1, 2, 0).cpu().numpy())
    try:
        return images.read(i)
    except OSError:
        return None


def _encoded(
    encode: Encode, opened: list[Image.Image], config: ResolvedAugment
) -> Float[Tensor, "n p"]:
    squares = torch.stack([central_square(image, config.size) for image in opened])
    parts = (normalised(part.float() / 255, config) for part in squares.split(_BATCH))
    return F.normalize(torch.cat([encode(part).float().cpu() for part in parts]))


def _compressed(image: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=40)
    return Image.open(stream).convert("RGB")


def _smaller(image: Image.Image) -> Image.Image:
    half = image.resize((max(image.width // 2, 1), max(image.height // 2, 1)))
    return half.resize(image.size, Image.Resampling.BICUBIC)


def _cut(image: Image.Image) -> Image.Image:
    x, y = image.width // 20, image.height // 20
    return image.crop((x, y, image.width - x, image.height - y))


def _brighter(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1.2)
