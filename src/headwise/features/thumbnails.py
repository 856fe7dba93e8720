"""Thumbnails of images, as they stand in a table."""

import io

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from headwise.augment import ResolvedAugment

_QUALITY = 90


def seen_pixels(
    batch: Float[Tensor, "n 3 s s"], config: ResolvedAugment
) -> UInt8[Tensor, "n 3 s s"]:
    """The images of a batch that was normalised for the encoder."""
    mean, std = (
        torch.tensor(v, device=batch.device)[:, None, None] for v in (config.mean, config.std)
    )
    return ((batch * std + mean) * 255).round().clamp(0, 255).byte().cpu()


def as_jpegs(pixels: UInt8[Tensor, "n 3 s s"], px: int) -> list[bytes]:
    """The squares as JPEG, at most `px` pixels wide; none is enlarged."""
    if pixels.shape[-1] > px:
        small = F.interpolate(pixels.float(), size=(px, px), mode="bilinear", antialias=True)
        pixels = small.round().clamp(0, 255).byte()
    return [_jpeg(Image.fromarray(one.permute(1, 2, 0).numpy())) for one in pixels]


def _jpeg(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()
