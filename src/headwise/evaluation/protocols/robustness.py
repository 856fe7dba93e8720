"""What a representation keeps of an image under each augmentation alone."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from headwise import rng
from headwise.augment import ops, study_ops
from headwise.augment.crop import apply_crop, crop_boxes, sample_crop
from headwise.config import check_fields
from headwise.errors import UserError
from headwise.evaluation.extracted import ExtractedRun
from headwise.evaluation.probes.labels import chance, labelled
from headwise.evaluation.protocols.altered import altered_features, at_most
from headwise.evaluation.protocols.description import Description
from headwise.evaluation.protocols.linear import linear_probe
from headwise.features.extract import Features, extract
from headwise.runs.results import Settings, Value, mean_value

ROBUSTNESS = Description(
    title="Robustness to augmentations",
    definition=(
        "Accuracy on augmented test images of a linear probe that was fitted on unchanged images, "
        "and the cosine between the features of an image with and without the augmentation. The "
        "chance level of the cosine is that of two different images."
    ),
    labels={"robustness": "accuracy, {variant}", "invariance": "cosine, {variant}"},
    section="robustness",
)

Graded = Literal["crop", "colour", "grey", "blur", "noise", "sobel", "cutout"]
Whole = Literal["flip", "rotation_90", "rotation_180", "rotation_270"]
"""These have no strength."""


@dataclass(frozen=True, kw_only=True)
class RobustnessConfig:
    """How accuracy changes when the test images are augmented, one augmentation at a time."""

    strengths: tuple[float, ...] = (0.25, 0.5, 1.0)
    """Strengths of the augmentations, above 0 and at most 1. Strength 1 means: a crop of 8 % of the
    area; SimCLR's colour jitter at its strength 1; a grey image; blur with σ = 2 px; noise with σ =
    0.2; the Sobel image alone; a hole of half the side."""
    train: int = 10_000
    """Largest number of training images that the linear probe learns from."""
    test: int = 2_000
    """Largest number of test images."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.strengths or not all(0 < strength <= 1 for strength in self.strengths):
            given = " ".join(map(str, self.strengths)) or "none"
            raise UserError(f"robustness.strengths must be numbers above 0, at most 1; got {given}")
        for name in ("train", "test"):
            if getattr(self, name) < 1:
                raise UserError(f"robustness.{name} must be at least 1; got {getattr(self, name)}")


def robustness(trained: ExtractedRun, config: RobustnessConfig, *, seed: int) -> Iterator[Value]:
    """`robustness_AUGMENTATION/TAP`: accuracy on test images under one augmentation, of the linear
    probe that was fitted on training images without any; `robustness_clean/TAP` for comparison.
    `invariance_AUGMENTATION/TAP`: the cosine between the features of a test image with and without
    it; its chance level is the mean cosine between different images without.

    AUGMENTATION is crop_0.5, colour_0.5, …, flip, rotation_90, …; TAP is h or z. Raises `UserError`
    for images without labels, as `linear_probe`, and for features that are not finite.
    """
    if not labelled(trained.images):
        raise UserError("robustness needs labels on training and test images; got none on one")
    model, extraction, taps = trained.model, trained.extraction, ("h", "z")
    train, asked = (
        at_most(trained.images.train, config.train),
        at_most(trained.test_images, config.test),
    )
    learned = extract(model.encoder, model.head, train, taps, extraction)
    clean = altered_features(model, asked, taps, lambda images, _: images, extraction)
    altered: dict[str, dict[str, Features]] = {}
    settings: dict[str, Settings] = {"clean": {"augmentation": "clean"}}
    for name, kind, strength in _augmentations(config.strengths):
        graded = {"strength": strength} if kind in get_args(Graded) else {}
        settings[name] = {"augmentation": kind, **graded}

        def change(
            images: Tensor, where: Tensor, kind: Graded | Whole = kind, strength: float = strength
        ) -> Tensor:
            draws = rng.generator(seed, "robustness", kind, int(where[0]))
            return _augment(images, kind, strength, draws)

        altered[name] = altered_features(model, asked, taps, change, extraction)
    for tap in taps:
        others = {name: features[tap] for name, features in altered.items()}
        values = _accuracies(tap, learned[tap], {"clean": clean[tap], **others}, seed)
        for value in (*values, *_invariances(tap, clean[tap].vectors, others)):
            yield dataclasses.replace(value, settings={**value.settings, **settings[value.variant]})


def _augmentations(
    strengths: tuple[float, ...],
) -> Iterator[tuple[str, Graded | Whole, float]]:
    """Name, kind and strength of each."""
    for kind in get_args(Graded):
        for strength in strengths:
            yield f"{kind}_{strength:g}", kind, strength
    for kind in get_args(Whole):
        yield kind, kind, 1.0


def _augment(
    images: Float[Tensor, "n 3 s s"],
    kind: Graded | Whole,
    strength: float,
    draws: torch.Generator,
) -> Float[Tensor, "n 3 s s"]:
    """Every image under the augmentation; the same draws at every strength."""
    n, size = len(images), images.shape[-1]
    every = torch.ones(n, dtype=torch.bool)
    match kind:
        case "crop":  # square, so that it has its area wherever it lies
            area, ratio = 1 - 0.92 * strength, (1.0, 1.0)
            crops = sample_crop(n, draws, scale=(area, area), ratio=ratio)
            return apply_crop(images, crop_boxes(crops, size, size, ratio), size)
        case "colour":
            most = (0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)
            return ops.apply_jitter(
                images, ops.sample_jitter(n, draws, probability=1.0, strengths=most)
            )
        case "grey":
            return images.lerp(ops.apply_grey(images, every), strength)
        case "blur":
            return ops.apply_blur(images, ops.Blur(torch.full((n,), 2 * strength), every))
        case "noise":
            sigma = (0.2 * strength, 0.2 * strength)
            noise = study_ops.sample_noise(
                n, draws, probability=1.0, sigma=sigma, size=(size, size)
            )
            return study_ops.apply_noise(images, noise)
        case "sobel":
            return images.lerp(study_ops.apply_sobel(images, every), strength)
        case "cutout":
            side = (0.5 * strength, 0.5 * strength)
            return study_ops.apply_cutout(
                images, study_ops.sample_cutout(n, draws, probability=1.0, side=side)
            )
        case "flip":
            return ops.apply_flip(images, every)
        case "rotation_90" | "rotation_180" | "rotation_270":
            turns = int(kind.removeprefix("rotation_")) // 90
            return study_ops.apply_rotation(images, torch.full((n,), turns))


def _accuracies(
    tap: str, train: Features, tests: dict[str, Features], seed: int
) -> Iterator[Value]:
    """The probe is fitted once, and asked about all tables as if they were one."""
    labels, truth = train.labels, tests["clean"].labels
    assert labels is not None, "labels were checked"
    assert truth is not None, "labels were checked"
    together = torch.cat([features.vectors for features in tests.values()])
    probe = linear_probe(train.vectors, labels, together, truth.repeat(len(tests)), seed=seed)
    parts = (answers.split(len(truth)) for answers in (probe.predictions, probe.margins))
    for name, predictions, margin in zip(tests, *parts, strict=True):
        yield mean_value(
            "robustness",
            "robustness",
            tap,
            predictions == truth,
            variant=name,
            chance=chance(labels, truth),
            settings={"penalty": probe.penalty},
            arrays={
                "predictions": predictions.int().cpu().numpy(),
                "margins": margin.float().cpu().numpy(),
            },
        )


def _invariances(
    tap: str, clean: Float[Tensor, "n p"], altered: dict[str, Features]
) -> Iterator[Value]:
    unit = F.normalize(clean.double(), dim=1)
    n = len(unit)
    # The squared length of the sum is the sum of all cosines, those of images with themselves too.
    different = (unit.sum(0).square().sum() - unit.square().sum()).item() / max(n * (n - 1), 1)
    for name, features in altered.items():
        cosines = F.cosine_similarity(clean.double(), features.vectors.double())
        yield mean_value(
            "robustness",
            "invariance",
            tap,
            cosines,
            variant=name,
            unit="cosine",
            chance=different,
        )
