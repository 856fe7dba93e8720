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
_IMAGES, _BATCH = 100, 32
_QUANTILE = 0.05
COPIES = "JPEG of quality 40, half the size, central 90 %, 20 % brighter"
"""The near copies that are made of an image."""

Encode = Callable[[Float[Tensor, "b 3 s s"]], Float[Tensor, "b p"]]
"""`h` of normalised images."""


class Calibration(NamedTuple):
    """A threshold for near copies, and how well it tells them from other images."""

    threshold: float
    """The cosine that 95 % of the near copies of sampled images reach."""
    images: int
    """How many were sampled."""
    others: float
    """The fraction of the sampled images that have another sampled image above the threshold."""

    def words(self) -> str:
        """Say where the threshold comes from."""
        return (
            f"95 % of near copies of {self.images} images ({COPIES}) are above; "
            f"{self.others:.0%} of these images have another of them above"
        )


@torch.no_grad()
def calibrate(
    encode: Encode, images: Images, config: ResolvedAugment, seed: int = 0
) -> Calibration:
    """Return the threshold for an encoder, from near copies of some of the images."""
    order = torch.randperm(len(images), generator=rng.generator(seed, "near copies"))
    opened = [found for i in order[:_IMAGES].tolist() if (found := picture(images, i))]
    originals = _encoded(encode, opened, config)
    copies = [
        _encoded(encode, [make(image) for image in opened], config)
        for make in (_compressed, _smaller, _cut, _brighter)
    ]
    same = torch.stack([(originals * copy).sum(1) for copy in copies])
    threshold = float(same.flatten().quantile(_QUANTILE))
    others = (originals @ originals.T).fill_diagonal_(-1).amax(1) >= threshold
    return Calibration(threshold, len(opened), float(others.float().mean()))


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
