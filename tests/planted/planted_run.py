"""Subjects whose encoder is a fixed function of the pixels, so that it is known what they keep."""

from pathlib import Path

import torch
from resolved import resolved_augment, resolved_config
from torch import nn

from headwise.data import Images, ResidentImages, Splits
from headwise.data.images import resident_images
from headwise.encoders.build import EncoderConfig
from headwise.evaluation.extracted import ExtractedRun
from headwise.heads import Head
from headwise.model.contrastive import ContrastiveModel
from headwise.model.extraction import ExtractConfig


def keeping(size: int, *kept: int) -> Head:
    """A head that copies these numbers of `h` and sets the others to 0."""
    layer = nn.Linear(size, size, bias=False)
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.weight[list(kept), list(kept)] = 1
    return Head([layer])


def in_memory(pixels: torch.Tensor, labels: torch.Tensor | None = None) -> ResidentImages:
    """From floats in [0, 1]."""
    classes = () if labels is None else tuple(map(str, range(int(labels.max()) + 1)))
    pixels = (pixels.clamp(0, 1) * 255).round().byte()
    return resident_images(pixels, labels, classes, [str(i) for i in range(len(pixels))])


def planted_run(
    folder: Path, train: Images, test: Images | None, encoder: nn.Module, head: Head, size: int
) -> ExtractedRun:
    """The encoder sees images of `size` px in [0, 1]."""
    view = resolved_augment(size=size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    small = EncoderConfig(name="resnet-small", stem="small-strided", widths=(8, 8, 16, 16))
    return ExtractedRun(
        config=resolved_config(train, augment=view, encoder=small),
        model=ContrastiveModel(encoder, head).eval(),
        images=Splits(train, test),
        extraction=ExtractConfig(augment=view, batch_size=64),
        tables={},
        folder=folder,
    )
