"""Fine-tuning: the whole network on all labels, from any tap of the head, against from scratch.

After SimCLR's transfer protocol (arXiv 2002.05709, B.8.2) and SimCLRv2 (arXiv 2006.10029), which
keeps the head's first layer. Cheaper than the papers': see `FinetuneConfig`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from headwise.config import check_fields
from headwise.data import Images, Splits
from headwise.data.split import stratified_split
from headwise.errors import UserError
from headwise.evaluation.extracted import ExtractedRun
from headwise.evaluation.probes.supervised import (
    SupervisedConfig,
    TapModel,
    accuracies,
    check_splits,
    new_weights,
    predict,
    right,
    train_classifier,
    training_labels,
)
from headwise.evaluation.protocols.description import Description
from headwise.heads import Head
from headwise.model.config import ResolvedConfig
from headwise.model.contrastive import ContrastiveModel
from headwise.model.extraction import ExtractConfig
from headwise.runs.results import Value

FINETUNE = Description(
    title="Fine-tuned on all labels",
    definition=(
        "The whole network is trained on all training labels, with the classifier at h or at a tap "
        "of the head, and from scratch for comparison. Accuracy on the test images."
    ),
    labels={"finetune": "all labels"},
    section="labels",
    source="arXiv 2002.05709, B.8.2; from a tap of the head: arXiv 2006.10029",
)


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Cheap by default: with three taps and three learning rates it is about 170 epochs. The paper
    takes 20,000 steps, and chooses among 7 learning rates and 8 weight decays."""

    taps: tuple[str, ...] | None = None
    """The taps that the classifier reads: h is without the head, z is after all of it. None: h, g1
    (SimCLRv2) and z, as far as the head has them."""
    epochs: int = 10
    """Passes over the training images."""
    scratch_epochs: int = 20
    """Passes over the training images when training from scratch, which gets twice the steps in the
    paper too."""
    batch_size: int = 256
    """Images in a step."""
    lrs: tuple[float, ...] = (0.01, 0.1, 1.0)
    """Learning rates for batches of 256 images. The best on a validation split is used; if only one
    is given, it is used as it is. The paper's are 1e-4 to 0.1, but a few hundred steps need
    more."""
    weight_decay: float = 1e-4
    """Weight decay of fine-tuning."""
    validation_fraction: float = 0.2
    """Fraction of the training images of each class on which the learning rate is chosen."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.lrs:
            raise UserError("--finetune.lrs must name at least one learning rate; got none")
        if not 0 < self.validation_fraction < 1:
            raise UserError(
                "--finetune.validation-fraction must lie between 0 and 1; "
                f"got {self.validation_fraction}"
            )


def finetune(trained: ExtractedRun, config: FinetuneConfig, *, seed: int) -> Iterator[Value]:
    """`finetune/TAP` for every tap and `finetune/scratch`, each with `_top5` and `_per_class`:
    accuracy on the test images of a network trained on all training images.

    The learning rate of each is chosen on a validation split of the training images; then it is
    trained anew on all of them, and asked about the test images once.
    """
    taps = default_taps(trained.model.head) if config.taps is None else config.taps
    for tap in taps:
        training = _Training(config, trained.model, tap, config.epochs, trained.extraction, seed)
        yield from _arm(tap, training, trained.images)
    yield from from_scratch(trained.config, trained.images, trained.extraction, config, seed=seed)


def fine_tuned(trained: ExtractedRun, config: FinetuneConfig, tap: str, *, seed: int) -> TapModel:
    """The network of `finetune/TAP`."""
    training = _Training(config, trained.model, tap, config.epochs, trained.extraction, seed)
    train = trained.images.train
    return training.trained(train, _choose(training, train)[0])


def from_scratch(
    config: ResolvedConfig,
    images: Splits,
    extraction: ExtractConfig,
    settings: FinetuneConfig,
    *,
    seed: int,
) -> Iterator[Value]:
    """`finetune/scratch`, with `_top5` and `_per_class`: the same network with new weights."""
    start = new_weights(config, seed)
    training = _Training(settings, start, "h", settings.scratch_epochs, extraction, seed)
    yield from _arm("scratch", training, images)


def _arm(arm: str, training: "_Training", images: Splits) -> Iterator[Value]:
    train, test = images.train, check_splits(*images)
    lr, validation = _choose(training, train)
    model = training.trained(train, lr)
    settings = {
        "learning_rate": lr,
        "validation_accuracies": validation,
        "epochs": training.epochs,
        "steps": training.settings(lr).steps(len(train)),
    }
    logits = predict(model, test, training.extraction)
    yield from accuracies(logits, train, protocol="finetune", where=arm, settings=settings)


def default_taps(head: Head) -> tuple[str, ...]:
    """h, and those of g1 and z that are something else."""
    if not head.layers:
        return ("h",)
    return ("h", *(tap for tap in ("g1", "z") if tap in head.tap_names))


@dataclass(frozen=True)
class _Training:
    """Everything but the images and the learning rate."""

    config: FinetuneConfig
    start: ContrastiveModel
    tap: str
    epochs: int
    extraction: ExtractConfig
    seed: int

    def settings(self, lr: float) -> SupervisedConfig:
        return SupervisedConfig(
            epochs=self.epochs,
            batch_size=self.config.batch_size,
            lr=lr,
            weight_decay=self.config.weight_decay,
        )

    def trained(self, images: Images, lr: float) -> TapModel:
        size = self.extraction.augment.size
        model = TapModel(self.start, self.tap, len(images.classes), size)
        train_classifier(model, images, self.settings(lr), self.extraction, seed=self.seed)
        return model


def _choose(training: _Training, train: Images) -> tuple[float, dict[str, float]]:
    """The learning rate of highest validation accuracy, of equals the lowest; and the accuracy of
    each."""
    lrs = sorted(training.config.lrs)
    if len(lrs) == 1:
        return lrs[0], {}
    fraction = training.config.validation_fraction
    fit, held_out = stratified_split(training_labels(train), fraction, training.seed)
    if not len(held_out):
        raise UserError(
            "finetune chooses its learning rate on training images held out of every class; "
            "got no class of 2 images; use more labels or a single --finetune.lrs"
        )
    accuracy = {}
    for lr in lrs:
        model = training.trained(train.select(fit), lr)
        logits = predict(model, train.select(held_out), training.extraction)
        accuracy[f"{lr:g}"] = right(logits).double().mean().item()
    return max(lrs, key=lambda lr: accuracy[f"{lr:g}"]), accuracy
