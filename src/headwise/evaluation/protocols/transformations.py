"""Which transformation was applied to an image, read from `h` and from `z`.

SimCLR's table 3 (arXiv 2002.05709): what the projection head throws away is what the loss asks it
to ignore. In the paper every transformation is in the pretraining of the encoder that is asked
about it; each value here says whether it was.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Float, Int64
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from headwise import rng
from headwise.augment import Operator, ResolvedAugment, ops, study_ops
from headwise.augment.crop import apply_crop, crop_boxes, sample_crop
from headwise.config import check_fields
from headwise.data import Images, Splits
from headwise.encoders.build import build_encoder
from headwise.errors import UserError
from headwise.evaluation.extracted import ExtractedRun
from headwise.evaluation.probes.labels import chance
from headwise.evaluation.probes.mlp import mlp_predict
from headwise.evaluation.protocols.altered import Change, altered_features, at_most
from headwise.evaluation.protocols.description import Description
from headwise.evaluation.protocols.factors import reading_values, ridge_readings
from headwise.features.extract import Features
from headwise.heads import Head
from headwise.model.contrastive import ContrastiveModel
from headwise.runs.results import Settings, Value, mean_value

TRANSFORMATIONS = Description(
    title="Transformations of the image",
    definition=(
        "An MLP on frozen features says which transformation was applied to an image: percent "
        "correct, beside the values of SimCLR's table 3 (ResNet-50 on ImageNet), whose encoders "
        "had the transformation in pretraining. For the "
        "parameters of random views: R² of a ridge regression, where a constant guess has 0."
    ),
    labels={"transformation": "{variant}"},
    section="transformations",
    source="arXiv 2002.05709, table 3",
    needs="images",
)

Task = Literal["grey", "rotation", "noise", "sobel"]
TASKS: tuple[Task, ...] = get_args(Task)

PAPER: dict[Task, dict[str, float]] = {
    "grey": {"chance": 0.80, "h": 0.993, "z": 0.974},
    "rotation": {"chance": 0.25, "h": 0.676, "z": 0.256},
    "noise": {"chance": 0.50, "h": 0.995, "z": 0.596},
    "sobel": {"chance": 0.50, "h": 0.966, "z": 0.563},
}
"""Accuracies of SimCLR's table 3: ResNet-50 on ImageNet, `h` and `z` of size 2048."""

_PARAMETERS: dict[str, Operator] = {
    "crop_x": "crop",
    "crop_y": "crop",
    "crop_area": "crop",
    "brightness": "colour",
    "hue": "colour",
    "blur": "blur",
}
"""The operator that each continuous parameter belongs to."""

# The continuous parameters. Crops as in SimCLR, the other ranges those of its colour jitter at half
# strength and of its blur.
_CROP_SCALE, _CROP_RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
_BRIGHTNESS, _HUE, _SIGMA = (0.6, 1.4), (-0.1, 0.1), (0.1, 2.0)

# With fewer, a class could be missing among the rows that the MLP is validated on.
_FEWEST_TRAIN, _FEWEST_TEST = 20, 5


@dataclass(frozen=True, kw_only=True)
class TransformationsConfig:
    """Predicting from features which transformation was applied to an image."""

    train: int = 10_000
    """Largest number of training images that the probes learn from."""
    test: int = 5_000
    """Largest number of test images."""
    noise: float = 0.1
    """σ of the Gaussian noise, where 1 is white. The paper does not state its value."""
    width: int = 256
    """Number of hidden units of the MLP. The paper does not state its value."""
    untrained: bool = True
    """Also measure h of the same encoder before training."""

    def __post_init__(self) -> None:
        check_fields(self)
        for name, least in (("train", _FEWEST_TRAIN), ("test", _FEWEST_TEST), ("width", 1)):
            if getattr(self, name) < least:
                raise UserError(
                    f"transformations.{name} must be at least {least}; got {getattr(self, name)}"
                )
        if not self.noise > 0:
            raise UserError(f"transformations.noise must be positive; got {self.noise}")


class _Split(NamedTuple):
    """Images of one split, the models that read them, and the place of what is drawn for them."""

    trained: ExtractedRun
    untrained: ContrastiveModel | None
    images: Images
    place: tuple[int, str]

    def generator(self, *where: str | int) -> torch.Generator:
        seed, split = self.place
        return rng.generator(seed, "transformations", split, *where)

    def features(self, change: Change) -> dict[str, Features]:
        extraction, images = self.trained.extraction, self.images
        by_tap = altered_features(self.trained.model, images, ("h", "z"), change, extraction)
        if self.untrained is not None:
            by_tap["untrained"] = altered_features(
                self.untrained, images, ("h",), change, extraction
            )["h"]
        return by_tap


def transformations(
    trained: ExtractedRun, config: TransformationsConfig, *, seed: int
) -> Iterator[Value]:
    """`transformation_TASK/TAP`: the accuracy with which an MLP says what was done to test images,
    each of which is shown once: grey or not (a fifth is), turned by 0, 90, 180 or 270 degrees,
    with Gaussian noise or not, Sobel-filtered or not. And R² of a ridge regression for parameters
    of views that are cropped, brightened, turned in hue and blurred all at once.

    TAP is h, z or untrained. They are compared at one size, the smallest of theirs: larger ones
    are reduced by PCA, fitted on the training images (`pca` in the settings). Needs no labels;
    without test images a fifth of the training images is held out. `in_pretraining` in the settings
    of h and z says whether the operator was among those of pretraining, as in the paper. Raises
    `UserError` for too few images and for features that are not finite.
    """
    untrained = _untrained(trained) if config.untrained else None
    train, test = (
        _Split(trained, untrained, images, (seed, split))
        for split, images in zip(("train", "test"), _parts(trained.images, config), strict=True)
    )
    for task in TASKS:
        x, y = _transformed(train, task, config.noise)
        x_test, truth = _transformed(test, task, config.noise)
        for tap, (learned, asked, settings) in _same_size(x, x_test).items():
            yield mean_value(
                "transformations",
                "transformation",
                tap,
                mlp_predict(learned, y, asked, config.width, seed) == truth,
                variant=task,
                chance=chance(y, truth),
                settings=settings | _form(trained.config.augment, task, tap),
            )
    x, targets = _viewed(train)
    x_test, truths = _viewed(test)
    for tap, (learned, asked, settings) in _same_size(x, x_test).items():
        for value in reading_values(
            ridge_readings(learned, targets, asked, truths),
            protocol="transformations",
            measure="transformation",
            where=tap,
            settings=settings,
        ):
            form = _form(trained.config.augment, _PARAMETERS[value.variant], tap)
            yield replace(value, settings=settings | form)


def _form(config: ResolvedAugment, op: Operator, tap: str) -> Settings:
    """Whether pretraining had the operator. The untrained encoder had no pretraining."""
    return {} if tap == "untrained" else {"in_pretraining": config.uses(op)}


def _parts(images: Splits, config: TransformationsConfig) -> tuple[Images, Images]:
    """Images to learn from and images to be asked about; the same at every seed."""
    train, test = images
    if test is None or not len(test):
        order = torch.randperm(len(train), generator=rng.generator(0, "transformations"))
        fifth = len(train) // 5
        train, test = train.select(order[fifth:]), train.select(order[:fifth])
    if len(train) < _FEWEST_TRAIN or len(test) < _FEWEST_TEST:
        raise UserError(
            f"transformations needs at least {_FEWEST_TRAIN} training images and {_FEWEST_TEST} "
            f"test images; got {len(train)} and {len(test)}"
        )
    return at_most(train, config.train), at_most(test, config.test)


def _untrained(trained: ExtractedRun) -> ContrastiveModel:
    config, extraction = trained.config, trained.extraction
    encoder = build_encoder(config.encoder, config.augment.size, config.seed)
    return ContrastiveModel(encoder, Head([])).to(extraction.device).eval()


def _transformed(
    split: _Split, task: Task, sigma: float
) -> tuple[dict[str, Tensor], Int64[Tensor, " n"]]:
    """Features of images that were transformed or not, and what was done to each (0: nothing).
    Every answer has its exact share, so that the chance level is no matter of luck."""
    rows = torch.arange(len(split.images))
    match task:
        case "grey":
            answers = (rows % 5 == 0).long()
        case "rotation":
            answers = rows % 4
        case "noise" | "sobel":
            answers = rows % 2
    answers = answers[torch.randperm(len(rows), generator=split.generator(task))]

    def change(images: Tensor, where: Tensor) -> Tensor:
        answer = answers[where]
        match task:
            case "grey":
                return ops.apply_grey(images, answer.bool())
            case "rotation":
                return study_ops.apply_rotation(images, answer)
            case "sobel":
                return study_ops.apply_sobel(images, answer.bool())
        height, width = images.shape[2:]
        noise = study_ops.sample_noise(
            len(images),
            split.generator(task, int(where[0])),
            probability=1.0,
            sigma=(sigma, sigma),
            size=(height, width),
        )
        return study_ops.apply_noise(images, noise._replace(applied=answer.bool()))

    by_tap = split.features(change)
    return {tap: features.vectors for tap, features in by_tap.items()}, answers[by_tap["h"].index]


def _viewed(split: _Split) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Features of random views, and the parameters of each view."""
    n, size = len(split.images), split.trained.extraction.augment.size
    draws = sample_crop(n, split.generator("crop"), scale=_CROP_SCALE, ratio=_CROP_RATIO)
    boxes = crop_boxes(draws, size, size, _CROP_RATIO)
    top, left, height, width = boxes.double().unbind(1)
    brightness, hue, sigma = (
        low + (high - low) * torch.rand(n, generator=split.generator(name))
        for name, (low, high) in (("brightness", _BRIGHTNESS), ("hue", _HUE), ("blur", _SIGMA))
    )
    targets = {
        "crop_x": (left + width / 2) / size,
        "crop_y": (top + height / 2) / size,
        "crop_area": height * width / size**2,
        "brightness": brightness,
        "hue": hue,
        "blur": sigma,
    }

    def change(images: Tensor, where: Tensor) -> Tensor:
        images = apply_crop(images, boxes[where], size)
        images = ops.adjust_brightness(images, brightness[where].to(images.device))
        images = ops.adjust_hue(images, hue[where].to(images.device))
        every = torch.ones(len(where), dtype=torch.bool)
        return ops.apply_blur(images, ops.Blur(sigma[where], every))

    by_tap = split.features(change)
    index = by_tap["h"].index
    return (
        {tap: features.vectors for tap, features in by_tap.items()},
        {name: values[index] for name, values in targets.items()},
    )


def _same_size(
    train: dict[str, Tensor], test: dict[str, Tensor]
) -> dict[str, tuple[Float[Tensor, "n p"], Float[Tensor, "m p"], Settings]]:
    """Of every tap its standardised features, at the size of the smallest tap, in units of their
    root mean square; and what was done for it."""
    size = min(min(x.shape) for x in train.values())
    by_tap = {}
    for tap in train:
        x, x_test = train[tap].double().numpy(), test[tap].double().numpy()
        scaler = StandardScaler().fit(x)
        x, x_test = scaler.transform(x), scaler.transform(x_test)
        reduce = x.shape[1] > size
        if reduce:
            axes = np.linalg.eigh(x.T @ x).eigenvectors[:, -size:]  # of the largest variance
            x, x_test = x @ axes, x_test @ axes
        scale = np.sqrt(x.var(0).mean()) or 1.0
        x, x_test = (torch.from_numpy(rows / scale).float() for rows in (x, x_test))
        by_tap[tap] = (x, x_test, {"size": size, "pca": reduce})
    return by_tap
