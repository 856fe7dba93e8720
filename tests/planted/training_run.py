"""Tiny subjects for the protocols that train: images whose class is their colour, or nothing."""

from pathlib import Path

import torch

from headwise import augment
from headwise.augment import AugmentConfig
from headwise.data import ResidentImages, Splits
from headwise.data.images import resident_images
from headwise.encoders.build import EncoderConfig
from headwise.evaluation.extracted import ExtractedRun
from headwise.heads import HeadConfig
from headwise.model.build import build_model
from headwise.model.config import PretrainConfig, resolve
from headwise.model.extraction import extract_config


def coloured(n: int, seed: int, *, planted: bool = True, classes: int = 3) -> ResidentImages:
    """Noise of 8 px whose class is its brightest channel; or random labels."""
    generator = torch.Generator().manual_seed(seed)
    colour = torch.arange(n) % 3
    pixels = torch.randint(0, 120, (n, 3, 8, 8), generator=generator)
    pixels[torch.arange(n), colour] += 120
    labels = colour if planted else torch.randint(classes, (n,), generator=generator)
    names = tuple(f"class {i}" for i in range(classes))
    return resident_images(pixels.byte(), labels, names, [f"{seed}/{i}.png" for i in range(n)])


def make_run(
    folder: Path, images: Splits | None = None, head: HeadConfig | None = None
) -> ExtractedRun:
    """A new network as if it were pretrained. Images: 96 and 150 coloured ones."""
    images = images or Splits(coloured(96, 0), coloured(150, 1))
    config = PretrainConfig(
        augment=augment.resolve(AugmentConfig(size=8), images.train),
        encoder=EncoderConfig(name="resnet-small", stem="small-strided", widths=(8, 8, 16, 16)),
        head=head or HeadConfig(name="mlp", output_size=8),
        batch_size=32,
        device="cpu",
        precision="float32",
    )
    resolved = resolve(config, images.train)
    model = build_model(resolved)
    return ExtractedRun(
        config=resolved,
        model=model.eval(),
        images=images,
        extraction=extract_config(resolved),
        tables={},
        folder=folder,
    )


def weights(trained: ExtractedRun) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trained.model.state_dict().items()}


def same(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> bool:
    return before.keys() == after.keys() and all(
        torch.equal(value, after[name]) for name, value in before.items()
    )
