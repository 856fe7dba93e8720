"""What protocols read: a finished run's model, its images, and features that are extracted once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import nn

from headwise.augment import unnormalised, whole_batches
from headwise.data import Images, Splits
from headwise.data.split import test_images
from headwise.encoders.build import build_encoder
from headwise.evaluation.protocols.targets import Target
from headwise.features.extract import Features, collected, extract
from headwise.heads import Head
from headwise.model.build import start_encoder
from headwise.model.config import ResolvedConfig
from headwise.model.contrastive import ContrastiveModel
from headwise.model.extraction import ExtractConfig
from headwise.runs.directory import Run

# Raw pixels are probed at this size at most: 3,072 numbers, as many as a CIFAR image has.
_PIXELS_PX = 32


BASELINES = ("pixels", "untrained", "start")
"""The tables that are of no tap."""


class SplitFeatures(NamedTuple):
    """The features of one tap, on the training images and on the test images."""

    train: Features
    test: Features


@dataclass(frozen=True, kw_only=True)
class ExtractedRun:
    """A trained run with its features. Protocols read it and change nothing in it; a protocol that
    trains, trains a copy of the model."""

    config: ResolvedConfig
    """The settings of pretraining."""
    model: ContrastiveModel
    """On the device of `extraction`, in evaluation mode."""
    images: Splits
    extraction: ExtractConfig
    tables: dict[str, SplitFeatures]
    """By tap; with baselines also `pixels` and `untrained`, and `start` for start weights."""
    folder: Path
    """The run directory. Protocols that draw subsets of labels keep them there."""
    targets: tuple[Target, ...] = ()
    """The data sets of the transfer protocol."""

    @property
    def test_images(self) -> Images:
        """The test images; where there are none, the training images."""
        return test_images(self.images)


class FeaturesAlone(NamedTuple):
    """Features without the run that they are of."""

    tables: dict[str, SplitFeatures]
    images: Splits | None
    """None where they are not known."""


Extracted = ExtractedRun | FeaturesAlone


def tables(
    model: ContrastiveModel, images: Splits, taps: Sequence[str], extraction: ExtractConfig
) -> dict[str, SplitFeatures]:
    """The features of every tap, in one pass over the images."""
    return encoder_tables(model.encoder, model.head, images, taps, extraction)


def encoder_tables(
    encoder: nn.Module,
    head: Head | None,
    images: Splits,
    taps: Sequence[str],
    extraction: ExtractConfig,
) -> dict[str, SplitFeatures]:
    """The same for an encoder that may have no head."""
    parts = (images.train, test_images(images))
    if parts[0] is parts[1]:
        train = test = extract(encoder, head, images.train, taps, extraction)
    else:
        train, test = (extract(encoder, head, part, taps, extraction) for part in parts)
    return {tap: SplitFeatures(train[tap], test[tap]) for tap in taps}


def baseline_tables(
    config: ResolvedConfig, images: Splits, extraction: ExtractConfig
) -> dict[str, SplitFeatures]:
    """The features without pretraining: raw `pixels`, and `untrained`, the `h` of the same
    encoder with new weights."""
    encoder = build_encoder(config.encoder, config.augment.size, config.seed)
    return {"pixels": pixels(images, extraction), "untrained": _h(encoder, images, extraction)}


def start_table(
    config: ResolvedConfig, images: Splits, extraction: ExtractConfig, kept: Run
) -> dict[str, SplitFeatures]:
    """`start`, the `h` of the encoder with the weights that the run began with; empty where they
    were new."""
    encoder = start_encoder(config, kept)
    return {} if encoder is None else {"start": _h(encoder, images, extraction)}


def _h(encoder: nn.Module, images: Splits, extraction: ExtractConfig) -> SplitFeatures:
    return encoder_tables(encoder.to(extraction.device), None, images, ["h"], extraction)["h"]


def pixels(images: Splits, extraction: ExtractConfig) -> SplitFeatures:
    """Raw pixels as features."""
    parts = (images.train, test_images(images))
    return SplitFeatures(*(_pixels(part, extraction) for part in parts))


def _pixels(images: Images, extraction: ExtractConfig) -> Features:
    """The whole images themselves as features, at 32 px at most, in [0, 1]."""
    small = unnormalised(extraction.augment, min(extraction.augment.size, _PIXELS_PX))
    batches = whole_batches(
        images, small, batch_size=extraction.batch_size, device="cpu", workers=extraction.workers
    )
    return collected(images, ((i, {"pixels": x.flatten(1)}) for i, x in batches))["pixels"]
