"""views.png: a sheet of images and their views, which shows what the model is trained on."""

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from headwise.augment.batches import batch_index, central_squares, view_batches
from headwise.augment.decoding import read_central_squares
from headwise.augment.policies import ResolvedAugment, unnormalised
from headwise.data import Images, ResidentImages
from headwise.files import write_atomically

_IMAGES, _STEPS, _GAP_PX, _MIN_SIDE_PX = 8, 4, 4, 64


def write_sheet(images: Images, config: ResolvedAugment, path: Path, seed: int) -> None:
    """Write a sheet with a row for each of eight images: the whole image, then eight views."""
    sheet = view_sheet(images, config, seed).permute(1, 2, 0).numpy()
    write_atomically(path, lambda temporary: Image.fromarray(sheet).save(temporary, "PNG"))


def view_sheet(images: Images, config: ResolvedAugment, seed: int) -> UInt8[Tensor, "3 h w"]:
    """Return the sheet as an image. Small images are enlarged without smoothing."""
    n, size = min(_IMAGES, len(images)), config.size
    config = unnormalised(config, size)
    images = images.select(torch.linspace(0, len(images) - 1, n).long())
    columns = [_originals(images, size)]
    steps = range(_STEPS)
    batches = view_batches(
        images, config, batch_size=n, steps=steps, seed=seed, device="cpu", workers=0
    )
    for step, batch in zip(steps, batches, strict=True):
        order = batch_index(n, n, step, seed).argsort()
        columns += [view[order] for view in (batch.pixels * 255).round().byte().split(n)]
    tiles = torch.stack(columns, 1)
    enlarge = -(-_MIN_SIDE_PX // size)
    tiles = tiles.repeat_interleave(enlarge, -1).repeat_interleave(enlarge, -2)
    tiles = F.pad(tiles, (0, _GAP_PX, 0, _GAP_PX), value=255)
    # A wider gap separates the whole image from its views.
    rows = [
        torch.cat([F.pad(row[0], (0, 3 * _GAP_PX), value=255), *row[1:]], dim=-1) for row in tiles
    ]
    return torch.cat(rows, dim=-2)


def _originals(images: Images, size: int) -> UInt8[Tensor, "n 3 size size"]:
    if isinstance(images, ResidentImages):
        return (central_squares(images.pixels.cpu(), size) * 255).round().byte()
    index, squares, _ = read_central_squares(images, range(len(images)), size)
    originals = torch.full((len(images), 3, size, size), 255, dtype=torch.uint8)
    originals[index] = squares
    return originals
