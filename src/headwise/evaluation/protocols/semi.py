"""Few labels: the whole network fine-tuned on a small part of them, against from scratch.

SimCLR's semi-supervised protocol (Chen et al., arXiv 2002.05709, B.5).
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from headwise.config import check_fields
from headwise.data import Images
from headwise.data.images import fingerprint
from headwise.data.split import balanced_fraction
from headwise.errors import UserError
from headwise.evaluation.extracted import ExtractedRun
from headwise.evaluation.probes.supervised import (
    SupervisedConfig,
    TapModel,
    accuracies,
    check_splits,
    new_weights,
    predict,
    train_classifier,
    training_labels,
)
from headwise.evaluation.protocols.description import Description
from headwise.files import csv_text, plain_cell, plain_text, write_text
from headwise.runs.results import Value

SEMI = Description(
    title="Fine-tuned with few labels",
    definition=(
        "The whole network is trained on a small part of the labels, from the pretrained weights "
        "and from scratch. Accuracy on the test images."
    ),
    labels={"semi": "{variant} % of labels"},
    section="labels",
    source="arXiv 2002.05709, B.5",
)


@dataclass(frozen=True, kw_only=True)
class SemiConfig:
    """The paper's recipe: SGD with Nesterov momentum 0.9, no warm-up, no weight decay, crops and
    flips. Its batch is 4,096 images."""

    fractions: tuple[float, ...] = (0.01, 0.1)
    """Fractions of the training labels that are used, one evaluation for each."""
    epochs: tuple[int, ...] = (60, 30)
    """Passes over the labelled images, one number for each of --semi.fractions."""
    min_steps: int = 200
    """Smallest number of steps, because few labels make few steps in an epoch. The paper's 60
    epochs of 1 % of ImageNet are 188 steps."""
    batch_size: int = 256
    """Images in a step; all labelled images if there are fewer."""
    lr: float = 0.05
    """Learning rate for batches of 256 images; it is proportional to the batch size."""
    from_tap: str = "h"
    """The tap that the classifier reads. h: without the head; g1: after the head's first layer
    (SimCLRv2)."""

    def __post_init__(self) -> None:
        check_fields(self)
        if len(self.fractions) != len(self.epochs) or not self.fractions:
            raise UserError(
                "--semi.epochs must be one number for each of --semi.fractions; "
                f"got {len(self.epochs)} for {len(self.fractions)}"
            )
        if not all(0 < fraction <= 1 for fraction in self.fractions):
            raise UserError(f"--semi.fractions must lie in (0, 1]; got {self.fractions}")


def semi(trained: ExtractedRun, config: SemiConfig, *, seed: int) -> Iterator[Value]:
    """`semi_1/finetuned`, `semi_1/scratch` and the same of every fraction, named by its percentage;
    each with `_top5` and `_per_class`: accuracy on the test images.

    Both networks are trained on the same images in the same order by the same recipe, which is made
    for the pretrained one: from scratch another might reach more. The labelled images are those of
    `subsets/semi-PERCENT-seedSEED.csv` in the run's folder (see `labelled_subset`).
    """
    train, test = trained.images.train, check_splits(*trained.images)
    starts = {"finetuned": trained.model, "scratch": new_weights(trained.config, seed)}
    size = trained.extraction.augment.size
    for fraction, epochs in zip(config.fractions, config.epochs, strict=True):
        percent = f"{100 * fraction:g}"
        path = trained.folder / "subsets" / f"semi-{percent}-seed{seed}.csv"
        subset = train.select(labelled_subset(train, fraction, seed, path))
        training = SupervisedConfig(
            epochs=epochs,
            batch_size=config.batch_size,
            lr=config.lr,
            min_steps=config.min_steps,
        )
        settings = {
            "labels": len(subset),
            "steps": training.steps(len(subset)),
            "from_tap": config.from_tap,
        }
        for arm, start in starts.items():
            model = TapModel(start, config.from_tap, len(train.classes), size)
            train_classifier(model, subset, training, trained.extraction, seed=seed)
            logits = predict(model, test, trained.extraction)
            yield from accuracies(
                logits, subset, protocol="semi", variant=percent, where=arm, settings=settings
            )


def labelled_subset(images: Images, fraction: float, seed: int, path: Path) -> Int64[Tensor, " m"]:
    """The ascending indices of the images whose labels are used, and the file that lists them.

    A file at `path` that was made for these images and labels is read, else it is written: a line
    with their fingerprint, then the id and the class of every image.
    """
    labels = training_labels(images)
    parts = (images.fingerprint.encode(), labels.numpy(), repr(images.classes).encode())
    first = f"# training images {fingerprint(*parts)}"
    if path.is_file():
        line, _, rows = path.read_text(encoding="utf-8").partition("\n")
        if line == first:
            return _read(images, rows, path)
    index = balanced_fraction(labels, fraction, seed)
    rows = [(plain_text(images.ids[i]), images.classes[labels[i]]) for i in index.tolist()]
    write_text(path, f"{first}\n{csv_text(('id', 'class'), rows)}")
    return index


def _read(images: Images, rows: str, path: Path) -> Int64[Tensor, " m"]:
    places = {plain_cell(plain_text(id)): i for i, id in enumerate(images.ids)}
    listed = [row["id"] for row in csv.DictReader(io.StringIO(rows))]
    unknown = next((id for id in listed if id not in places), None)
    if unknown is not None or not listed:
        raise UserError(
            f"{path} must list training images by id; got {unknown or 'none'}; "
            "delete it to have the images drawn again"
        )
    return torch.tensor(sorted({places[id] for id in listed}))
