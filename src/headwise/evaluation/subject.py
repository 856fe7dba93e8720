"""What is evaluated: a finished run's model, the images, and the features extracted once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from headwise.augment import unnormalised, whole_batches
from headwise.data import Images, Splits
from headwise.encoders.build import build_encoder
from headwise.evaluation.protocols.targets import Target
from headwise.features.extract import Features, collected, extract
from headwise.model.config import ResolvedConfig
from headwise.model.contrastive import ContrastiveModel
from headwise.model.extraction import ExtractConfig

# Raw pixels are probed at this size at most: 3,072 numbers, as many as a CIFAR image has.
_PIXELS_PX = 32


class Table(NamedTuple):
    """The features of one tap."""

    train: Features
    test: Features


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A protocol reads it and changes nothing in it, the model least of all: who trains, trains a
    copy."""

    config: ResolvedConfig
    """Of pretraining, resolved."""
    model: ContrastiveModel
    """On the device of `how`, in evaluation mode."""
    images: Splits
    spec: str
    """Where the images are from."""
    how: ExtractConfig
    tables: dict[str, Table]
    """By tap; with baselines also `pixels` and `untrained`."""
    folder: Path
    """The run's. Protocols that draw subsets of labels keep them there."""
    targets: tuple[Target, ...] = ()
    """What to transfer to."""

    @property
    def shown(self) -> Images:
        """The test images; where there are none, the training images."""
        return shown(self.images)


def shown(images: Splits) -> Images:
    return images.train if images.test is None or not len(images.test) else images.test


def tables(
    model: ContrastiveModel, images: Splits, taps: Sequence[str], how: ExtractConfig
) -> dict[str, Table]:
    """The features of every tap, in one pass over the images."""
    parts = (images.train, shown(images))
    if parts[0] is parts[1]:
        train = test = extract(model.encoder, model.head, images.train, taps, how)
    else:
        train, test = (extract(model.encoder, model.head, part, taps, how) for part in parts)
    return {tap: Table(train[tap], test[tap]) for tap in taps}


def baseline_tables(config: ResolvedConfig, images: Splits, how: ExtractConfig) -> dict[str, Table]:
    """What there is without pretraining: raw `pixels`, and `untrained`, the `h` of the same
    encoder with its first weights."""
    encoder = build_encoder(config.encoder, config.augment.size, config.seed).to(how.device)
    parts = (images.train, shown(images))
    return {
        "pixels": Table(*(_pixels(part, how) for part in parts)),
        "untrained": Table(*(extract(encoder, None, part, ["h"], how)["h"] for part in parts)),
    }


def _pixels(images: Images, how: ExtractConfig) -> Features:
    """The whole images themselves as features, at 32 px at most, in [0, 1]."""
    small = unnormalised(how.augment, min(how.augment.size, _PIXELS_PX))
    batches = whole_batches(
        images, small, batch_size=how.batch_size, device="cpu", workers=how.workers
    )
    return collected(images, ((i, {"pixels": x.flatten(1)}) for i, x in batches))["pixels"]
