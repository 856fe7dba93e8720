"""Features: the vectors of one tap for a set of images, extracted once, evaluated many times."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from headwise import hardware, rng
from headwise.augment import AugmentConfig, whole_batches
from headwise.data import Images
from headwise.errors import UserError, nearest
from headwise.heads import Head
from headwise.pretrain_config import PretrainConfig


class Features(NamedTuple):
    """One tap's vectors for the images at `index`, in the images' order."""

    vectors: Float[Tensor, "n p"]
    labels: Int64[Tensor, " n"] | None
    index: Int64[Tensor, " n"]
    """Positions among the images; all of them, unless some could not be read."""


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """How images are encoded for evaluation: whole, without augmentation, BatchNorm frozen."""

    augment: AugmentConfig
    """Size and normalisation of pretraining (resolved)."""
    batch_size: int = 512
    """Images encoded at a time. What a head that attends over the batch sees, hence part of what
    its `z` is."""
    device: str = "cpu"
    precision: str = "float32"
    workers: int = 0
    seed: int = 0
    """Of the order in which images share batches: by class would leak the labels to such a head."""


def extract_config(config: PretrainConfig) -> ExtractConfig:
    """How a run's own model is evaluated: as it was trained, on the same device."""
    return ExtractConfig(
        augment=config.augment,
        device=config.device,
        precision=config.precision,
        workers=config.workers or 0,
        seed=config.seed,
    )


def check_taps(taps: Sequence[str], head: Head) -> None:
    """Raise `UserError` for a tap that the head does not have."""
    known = ("h", *head.tap_names)
    for tap in taps:
        if tap not in known:
            raise UserError(
                f"--taps must be cut points of this head; got {tap!r}; {nearest(tap, known)}"
            )


@torch.no_grad()
def extract(
    encoder: nn.Module,
    head: Head | None,
    images: Images,
    taps: Sequence[str],
    config: ExtractConfig,
) -> dict[str, Features]:
    """The features of all `taps` in one pass over the images, float32, on the CPU.

    Neither encoder nor head changes. A head that attends over samples sees shuffled batches.
    """
    if head is not None:
        check_taps(taps, head)
    modes = [(module, module.training) for module in (encoder, head) if module is not None]
    order = torch.randperm(len(images), generator=rng.generator(config.seed, "extract"))
    rows: dict[str, list[Tensor]] = {tap: [] for tap in taps}
    read = []
    try:
        for module, _ in modes:
            module.eval()
        batches = whole_batches(
            images.select(order),
            config.augment,
            batch_size=config.batch_size,
            device=config.device,
            workers=config.workers,
        )
        for index, pixels in batches:
            read.append(index)
            with hardware.autocast(config.device, config.precision):
                values = {"h": encoder(pixels.contiguous(memory_format=torch.channels_last))}
                if head is not None and set(taps) != {"h"}:
                    values |= head.taps(values["h"], views=1)
            for tap in taps:
                rows[tap].append(values[tap].float().cpu())
    finally:
        for module, training in modes:
            module.train(training)
    if not read:
        raise UserError("features need at least one readable image; got none")
    index = order[torch.cat(read)]
    back = index.argsort()
    labels = None if images.labels is None else images.labels.cpu()[index[back]]
    return {tap: Features(torch.cat(rows[tap])[back], labels, index[back]) for tap in taps}
