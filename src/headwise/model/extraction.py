"""How images are encoded by a trained encoder, on this machine."""

from dataclasses import dataclass

from headwise.augment import ResolvedAugment
from headwise.data import ImageFiles, Splits
from headwise.model.config import ResolvedConfig
from headwise.runtime import hardware
from headwise.runtime.hardware import Device, Precision, ResolvedDevice, ResolvedPrecision


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """How images are encoded for evaluation: whole, without augmentation, BatchNorm frozen."""

    augment: ResolvedAugment
    """Size and normalisation of pretraining (resolved)."""
    batch_size: int = 512
    """Images encoded at a time. A head that attends over the batch sees these, so its `z` depends
    on it."""
    device: ResolvedDevice = "cpu"
    precision: ResolvedPrecision = "float32"
    workers: int = 0
    """Processes that decode image files; images in memory need none."""
    seed: int = 0
    """Seed of the order in which images share batches. In the order of the classes, such a head
    would see the labels."""


def extract_config(config: ResolvedConfig) -> ExtractConfig:
    """How a run encodes images while it trains."""
    return ExtractConfig(
        augment=config.augment,
        device=config.device,
        precision=config.precision,
        workers=config.workers,
        seed=config.seed,
    )


def decide_extraction(
    augment: ResolvedAugment,
    images: Splits,
    *,
    device: Device,
    precision: Precision,
    workers: int | None,
    seed: int = 0,
    batch_size: int = 512,
) -> ExtractConfig:
    """The settings on this machine. `workers` None: one a core if the images are files."""
    here = hardware.resolve_device(device)
    if workers is None:
        files = any(isinstance(part, ImageFiles) for part in images if part is not None)
        workers = hardware.usable_cores() if files else 0
    return ExtractConfig(
        augment=augment,
        batch_size=batch_size,
        device=here,
        precision=hardware.resolve_precision(precision, here),
        workers=workers,
        seed=seed,
    )
