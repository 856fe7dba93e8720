"""Images for an encoder that was taken away: the same numbers that `headwise embed` makes."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from headwise.augment import normalised, whole_images
from headwise.augment.decoding import central_square
from headwise.data.config import Fit
from headwise.data.decode import decode, prepared
from headwise.errors import UserError

Picture = str | Path | Image.Image


def prepare(
    images: Picture | Iterable[Picture], encoder: nn.Module
) -> Float[Tensor, "n 3 size size"]:
    """Return images as an encoder from `load_encoder` takes them.

    An image is a path, or one that Pillow has opened: of any mode, depth and shape, turned upright
    by its EXIF orientation (docs/data.md). It becomes a square as in pretraining, at the encoder's
    size, RGB, normalised. On the CPU. Raises `UserError` for what is no image, and for an encoder
    that `load_encoder` did not make.
    """
    settings: Any = encoder.pretrained_cfg
    image = settings.get("headwise") if isinstance(settings, dict) else None
    if image is None:
        raise UserError("prepare needs an encoder from headwise.load_encoder; got another model")
    listed = [images] if isinstance(images, Picture) else [*images]
    size, resize, fit = image["size_px"], image.get("resize_px"), image.get("fit", "crop")
    squares = [central_square(_opened(one, resize, fit), size) for one in listed]
    pixels = torch.stack(squares) if squares else torch.empty(0, 3, size, size)
    return normalised(pixels.float() / 255, whole_images(size, image["mean"], image["std"]))


def _opened(image: Picture, resize: int | None, fit: Fit) -> Image.Image:
    if not isinstance(image, Picture):
        raise UserError(
            "prepare takes paths and images that Pillow has opened (an array: "
            f"PIL.Image.fromarray); got {type(image).__name__}"
        )
    try:
        if isinstance(image, Image.Image):
            return prepared(image, resize, fit)
        with Path(image).open("rb") as file:
            return decode(file, resize, fit=fit)
    except OSError as error:
        raise UserError(f"{image} cannot be read as an image: {error}") from error
