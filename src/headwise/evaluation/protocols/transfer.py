"""Transfer to other labelled images: a linear probe on `h`, and the encoder fine-tuned.

SimCLR's transfer protocol (Chen et al., arXiv 2002.05709, B.8), after Kornblith et al.
(arXiv 1805.08974).
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Bool, Shaped
from torch import Tensor, nn

from headwise.config import check_fields
from headwise.data import ImageFiles, Images
from headwise.data.split import stratified_split
from headwise.encoders.build import build_encoder
from headwise.errors import UserError
from headwise.evaluation.extracted import ExtractedRun
from headwise.evaluation.probes.labels import chance
from headwise.evaluation.probes.multilabel import memberships, multilabel_probe
from headwise.evaluation.probes.supervised import (
    SupervisedConfig,
    TapModel,
    check_splits,
    predict,
    train_classifier,
    training_labels,
)
from headwise.evaluation.protocols.description import Description
from headwise.evaluation.protocols.linear import linear_probe
from headwise.evaluation.protocols.targets import Target
from headwise.evaluation.statistics.metrics import Metric, answers_name, score
from headwise.evaluation.statistics.tests import bootstrap
from headwise.features.extract import Features, extract
from headwise.model.extraction import ExtractConfig
from headwise.runs.results import Settings, Value, mean_value
from headwise.runtime import hardware

TRANSFER = Description(
    title="Transfer to other images",
    definition=(
        "How well h serves images that pretraining has not seen: a linear probe on h, the same "
        "probe on the untrained encoder, and the encoder fine-tuned, each in the target's own "
        "metric on its test images."
    ),
    labels={
        "transfer_linear": "linear probe",
        "transfer_untrained": "linear probe, untrained encoder",
        "transfer_finetune": "fine-tuned",
    },
    section="transfer",
    source="arXiv 2002.05709, B.8; arXiv 1805.08974",
    needs="targets",
)


@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """Fine-tuning is cheap by default, four trainings of 200 steps a target; the paper's are 57 of
    20,000."""

    targets: tuple[str, ...] = ()
    """The data sets to transfer to. Each is NAME=IMAGES, with images as for --data, or
    NAME:METRIC=IMAGES with the metric top1 (the default), per_class or map11, where an image of
    several classes has the class a+b. Or one of the paper's sets: food101 cifar10 cifar100 birdsnap
    sun397 cars aircraft voc2007 dtd pets caltech101 flowers."""
    limit: int | None = None
    """Largest number of images of each split of a target. None: all images."""
    finetune: bool = True
    """Also fine-tune the encoder on each target."""
    steps: int = 200
    """Steps of fine-tuning, but at least one pass over the images. The paper takes 20,000."""
    batch_size: int = 256
    """Images in a step of fine-tuning."""
    lrs: tuple[float, ...] = (0.001, 0.01, 0.1)
    """Learning rates of fine-tuning for batches of 256 images; the best on a validation split is
    used. The paper has 7, log-spaced from 1e-4 to 0.1."""
    weight_decays: tuple[float, ...] = (0.0,)
    """Weight decays of fine-tuning; the best on a validation split is used. Each is divided by the
    learning rate, as in the paper, which has 0 and 7 log-spaced from 1e-6 to 1e-3."""
    validation_fraction: float = 0.2
    """Fraction of the training images of each class on which the settings of fine-tuning are
    chosen."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.lrs or not self.weight_decays:
            raise UserError(
                "--transfer.lrs and --transfer.weight-decays must name at least one value each"
            )
        if min(self.lrs) <= 0 or min(self.weight_decays) < 0:
            raise UserError(
                "--transfer.lrs must be positive and --transfer.weight-decays not negative; "
                f"got {self.lrs} and {self.weight_decays}"
            )
        if not 0 < self.validation_fraction < 1:
            raise UserError(
                "--transfer.validation-fraction must lie between 0 and 1; "
                f"got {self.validation_fraction}"
            )


def transfer(trained: ExtractedRun, config: TransferConfig, *, seed: int) -> Iterator[Value]:
    """`transfer_linear/NAME`, `transfer_untrained/NAME` (the same probe on the encoder's first
    weights) and `transfer_finetune/NAME` for every target, each in the target's metric on its test
    images. Raises `UserError` for one that cannot be learned from, with its name.
    """
    for target in trained.targets:
        try:
            prepared = _prepare(trained, target, seed)
            yield from _linear(trained, prepared)
            if config.finetune:
                yield _finetuned(trained, config, prepared)
        except UserError as error:
            raise UserError(f"transfer to {target.name}: {error}") from error


@dataclass(frozen=True)
class _Prepared:
    """A target made ready."""

    target: Target
    test: Images
    extraction: ExtractConfig
    sets: Bool[Tensor, "k c"] | None
    """Of every label the classes it stands for, where images have several."""
    seed: int

    @property
    def num_classes(self) -> int:
        return len(self.target.images.train.classes) if self.sets is None else self.sets.shape[1]

    def truth(self, features: Features) -> Shaped[Tensor, "n *c"]:
        assert features.labels is not None, "targets have labels"
        return features.labels if self.sets is None else self.sets[features.labels]


def _prepare(trained: ExtractedRun, target: Target, seed: int) -> _Prepared:
    train, test = target.images
    extraction = dataclasses.replace(trained.extraction, seed=seed)
    if isinstance(train, ImageFiles) and not extraction.workers:
        extraction = dataclasses.replace(extraction, workers=hardware.usable_cores())
    if target.metric == "map11":
        _, sets = memberships(train.classes)
        assert test is not None, "targets have test images"
        return _Prepared(target, test, extraction, sets, seed)
    return _Prepared(target, check_splits(train, test), extraction, None, seed)


def _linear(trained: ExtractedRun, prepared: _Prepared) -> Iterator[Value]:
    config = trained.config
    untrained = build_encoder(config.encoder, config.augment.size, config.seed)
    encoders = {
        "transfer_linear": trained.model.encoder,
        "transfer_untrained": untrained.to(prepared.extraction.device),
    }
    for measure, encoder in encoders.items():
        parts = (prepared.target.images.train, prepared.test)
        train, test = (
            extract(encoder, None, part, ["h"], prepared.extraction)["h"] for part in parts
        )
        assert train.labels is not None, "targets have labels"
        assert test.labels is not None, "targets have labels"
        if prepared.sets is None:
            tables = (train.vectors, train.labels, test.vectors, test.labels)
            result = linear_probe(*tables, seed=prepared.seed)
            answers, penalty = result.predictions, result.penalty
        else:
            answers, penalty = multilabel_probe(
                train.vectors, train.labels, prepared.sets, test.vectors, seed=prepared.seed
            )
        yield _value(measure, prepared, answers, prepared.truth(test), {"penalty": penalty})


def _finetuned(trained: ExtractedRun, config: TransferConfig, prepared: _Prepared) -> Value:
    """With the settings of the best validation score; of equals, the first in the grid."""
    train = prepared.target.images.train
    grid = _grid(config)
    validation = []
    if len(grid) > 1:
        fraction = config.validation_fraction
        fit, held_out = stratified_split(training_labels(train), fraction, prepared.seed)
        for training in grid:
            model = _trained(trained, prepared, train.select(fit), training)
            answers, truth = _answers(model, train.select(held_out), prepared)
            validation.append(
                -1.0 if answers is None else score(prepared.target.metric, answers, truth)
            )
    best = validation.index(max(validation)) if validation else 0
    answers, truth = _answers(
        _trained(trained, prepared, train, grid[best]), prepared.test, prepared
    )
    if answers is None:
        raise UserError("fine-tuning diverged; try lower --transfer.lrs")
    settings = {
        "learning_rate": grid[best].lr,
        "weight_decay": grid[best].weight_decay,
        "steps": grid[best].steps(len(train)),
        "validation_scores": validation,
    }
    return _value("transfer_finetune", prepared, answers, truth, settings)


def _grid(config: TransferConfig) -> list[SupervisedConfig]:
    """Learning rates from low to high, and for each the weight decays."""
    return [
        SupervisedConfig(
            epochs=1,
            min_steps=config.steps,
            batch_size=config.batch_size,
            lr=lr,
            weight_decay=decay / lr,
        )
        for lr in sorted(config.lrs)
        for decay in sorted(config.weight_decays)
    ]


def _trained(
    trained: ExtractedRun, prepared: _Prepared, images: Images, training: SupervisedConfig
) -> TapModel:
    model = TapModel(trained.model, "h", prepared.num_classes, prepared.extraction.augment.size)
    steps_per_epoch = max(1, len(images) // training.batch_size)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # the paper's max(1 − 10/s, 0.9) is what is kept
            module.momentum = min(10 / steps_per_epoch, 0.1)
    train_classifier(
        model, images, training, prepared.extraction, seed=prepared.seed, sets=prepared.sets
    )
    return model


def _answers(
    model: TapModel, images: Images, prepared: _Prepared
) -> tuple[Shaped[Tensor, "n *c"] | None, Shaped[Tensor, "n *c"]]:
    """Predictions or scores, none where they are not finite, and the truth."""
    logits = predict(model, images, prepared.extraction)
    answers = logits.vectors if prepared.sets is not None else logits.vectors.argmax(1)
    return answers if logits.vectors.isfinite().all() else None, prepared.truth(logits)


def _value(
    measure: str,
    prepared: _Prepared,
    answers: Shaped[Tensor, "n *c"],
    truth: Shaped[Tensor, "n *c"],
    probe_settings: Settings,
) -> Value:
    target, train = prepared.target, prepared.target.images.train
    metric, by_chance = target.metric, _chance(training_labels(train), truth, target.metric)
    settings = {
        "metric": metric,
        **probe_settings,
        "target": target.spec,
        "target_fingerprint": prepared.test.fingerprint,
        "train_images": len(train),
        "seen_images": target.seen_images,
    }
    if metric == "top1":
        right = answers == truth
        return mean_value(
            "transfer", measure, target.name, right, chance=by_chance, settings=settings
        )
    return Value(
        protocol="transfer",
        measure=measure,
        where=target.name,
        unit="share",
        value=score(metric, answers, truth),
        n=len(truth),
        interval=bootstrap(
            lambda rows: score(metric, answers[rows], truth[rows]), len(truth), seed=0
        ),
        chance=by_chance,
        settings=settings,
        arrays={answers_name(metric): answers.numpy(), "truth": truth.numpy()},
    )


def _chance(labels: Tensor, truth: Tensor, metric: Metric) -> float:
    """Of a constant answer."""
    match metric:
        case "top1":
            return chance(labels, truth)
        case "per_class":
            return 1 / len(truth.unique())
    return truth.double().mean(0)[truth.any(0)].mean().item()
