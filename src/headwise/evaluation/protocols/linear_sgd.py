"""SimCLR's linear evaluation: a linear layer on the frozen encoder, trained under crops and flips.

Chen et al., arXiv 2002.05709, B.6: SGD with Nesterov momentum 0.9, learning rate 0.1·B/256, 90
epochs, no regularisation, random crops and flips; at test a central crop. The decay of the learning
rate is that of its code, half a cosine. The paper's batch is 4,096 images.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from headwise.config import check_fields
from headwise.evaluation.extracted import ExtractedRun
from headwise.evaluation.probes.supervised import (
    SupervisedConfig,
    TapModel,
    accuracies,
    check_splits,
    predict,
    train_classifier,
)
from headwise.evaluation.protocols.description import Description
from headwise.runs.results import Value

LINEAR_SGD = Description(
    title="Linear layer trained with augmentation",
    definition=(
        "SimCLR's linear evaluation: a linear layer on the frozen encoder, trained by SGD under "
        "crops and flips. Accuracy on the test images."
    ),
    labels={"linear_sgd": "linear layer by SGD"},
    section="taps",
    source="arXiv 2002.05709, B.6",
)


@dataclass(frozen=True, kw_only=True)
class LinearSgdConfig:
    """A linear classifier that is trained by SGD on augmented images."""

    epochs: int = 90
    """Passes over the training images; every image goes through the whole encoder."""
    batch_size: int = 256
    """Images in a step."""
    lr: float = 0.1
    """Learning rate for batches of 256 images; it is proportional to the batch size."""

    def __post_init__(self) -> None:
        check_fields(self)


def linear_sgd(trained: ExtractedRun, config: LinearSgdConfig, *, seed: int) -> Iterator[Value]:
    """`linear_sgd/h`, `linear_sgd_top5/h`, `linear_sgd_per_class/h`: accuracy on the test images.

    The encoder is a copy in evaluation mode, so that BatchNorm's statistics stay as pretraining
    left them, and no gradient goes through it. Nothing is chosen; the last step counts.
    """
    train, test = trained.images.train, check_splits(*trained.images)
    training = SupervisedConfig(epochs=config.epochs, batch_size=config.batch_size, lr=config.lr)
    size = trained.extraction.augment.size
    model = TapModel(trained.model, "h", len(train.classes), size)
    train_classifier(model, train, training, trained.extraction, seed=seed, frozen=model.encoder)
    settings = {"epochs": config.epochs, "steps": training.steps(len(train))}
    logits = predict(model, test, trained.extraction)
    yield from accuracies(logits, train, protocol="linear_sgd", where="h", settings=settings)
