"""The linear probe: L2-regularised multinomial logistic regression by L-BFGS, λ from validation.

SimCLR's transfer protocol (arXiv 2002.05709, B.8): no augmentation, 45 log-spaced λ in
[1e-6, 1e5], chosen on a validation split, retrained on training and validation images together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from headwise.data.split import balanced_fraction, stratified_split
from headwise.errors import UserError
from headwise.evaluation.probes.labels import check_classes, check_seen
from headwise.evaluation.probes.logistic import fit_logistic, scores
from headwise.evaluation.protocols.description import Description
from headwise.evaluation.statistics.metrics import accuracy_values, margins
from headwise.features.extract import Features, check_tables
from headwise.runs.results import Value

LINEAR = Description(
    title="Linear probe",
    definition=(
        "Logistic regression on the frozen features, its penalty chosen on a validation split of "
        "the training images. Accuracy on the test images."
    ),
    labels={"linear": "linear probe"},
    section="taps",
    source="arXiv 2002.05709, B.8",
)
LINEAR_10 = Description(
    title="Linear probe with 10 % of the labels",
    definition="The linear probe, trained on 10 % of the training labels, as many of every class.",
    labels={"linear_10": "linear probe, 10 % of labels"},
    section="taps",
    source="arXiv 2403.18681",
)

PENALTIES: tuple[float, ...] = tuple(float(penalty) for penalty in np.logspace(5, -6, 45))
"""λ, from large to small."""

# On the way down the path a search ends at decreases of the objective below this: against the
# default of `fit_logistic`, a fifth of the time, and the same λ where it was tried.
_PATH_TOLERANCE = 1e-6
_PART_ROWS = 8192


@dataclass(frozen=True, kw_only=True)
class LinearResult:
    accuracy: float
    """The fraction of test rows that are right, 0 to 1."""
    penalty: float
    """The λ of highest validation accuracy; of equals, the largest."""
    predictions: Int64[Tensor, " m"]
    """The class of each test row."""
    best: Int64[Tensor, "m b"]
    """The classes of highest score for each test row, best first: five, or all there are."""
    margins: Float[Tensor, " m"]
    """The score of the right class above the highest of the others, for each test row."""
    penalties: tuple[float, ...]
    """The λ that were tried, from large to small."""
    validation_accuracies: tuple[float, ...]
    """One for each of `penalties`."""


def linear(
    tap: str, train: Features, test: Features, *, seed: int, fraction: float = 1.0
) -> Iterator[Value]:
    """Top-1 with its confusion matrix (rows: right class, columns: answer), top-5 where there are
    more than five classes, and the mean over classes of the accuracy in each.

    `fraction`: of the training labels, the same number of every class; 0.1 is Deep Fusion's
    "supervised" number (arXiv 2403.18681, inferred from the authors' code) by this probe, not by
    theirs. The protocol is then called `linear_10`, for 10 %. Raises `UserError` as `linear_probe`.
    """
    labels, test_labels = train.labels, test.labels
    assert labels is not None, "labels were checked"
    assert test_labels is not None, "labels were checked"
    protocol, x, y = "linear", train.vectors, labels
    if fraction != 1:
        if not 0 < fraction < 1:
            raise UserError(f"linear's fraction must lie above 0, at most 1; got {fraction}")
        # Two of a class at least: one is to validate on.
        protocol, rows = (
            f"linear_{100 * fraction:g}",
            balanced_fraction(labels, fraction, seed, at_least=2),
        )
        x, y = x[rows], y[rows]
    result = linear_probe(x, y, test.vectors, test_labels, seed=seed)
    settings = {"penalty": result.penalty, "labels": len(y)}
    confusion = _confusion(y.unique(), test_labels, result.predictions)
    answers = result.best == test_labels[:, None]
    hits = {top: answers[:, :top].any(1) for top in (1, 5) if top < len(confusion)}
    yield from accuracy_values(
        hits,
        test_labels,
        labels,
        protocol=protocol,
        where=tap,
        settings=settings,
        arrays={
            "confusion": confusion,
            "predictions": result.predictions.int().cpu().numpy(),
            "margins": result.margins.float().cpu().numpy(),
        },
    )


@torch.no_grad()
def linear_probe(
    train: Float[Tensor, "n p"],
    train_labels: Int[Tensor, " n"],
    test: Float[Tensor, "m p"],
    test_labels: Int[Tensor, " m"],
    *,
    seed: int,
    validation_fraction: float = 0.2,
    penalties: Sequence[float] = PENALTIES,
) -> LinearResult:
    """Fit on training features and labels, and predict the test rows once.

    The training mean is taken off and all features are divided by one number, their root mean
    square, then rotated to their principal axes. One number and a rotation leave the geometry
    alone, so a probe gives the same answer in any basis, and features that are constant cannot be
    blown up to unit size; the axes make L-BFGS quick (see `fit_logistic`) and change no minimum.
    These statistics come from all training rows; labels of validation rows choose λ only.

    Labels are any integers; the classes are those of the training labels. Raises `UserError` for
    fewer than two classes, a class with one image, a test label that training has not, features
    that are not finite, and a penalty or fraction out of range.
    """
    penalties = sorted(penalties, reverse=True)
    _check(train, test, penalties, validation_fraction)
    classes, y = _classes(train_labels, test_labels)
    mean, rotation = _principal_axes(train)
    x = (train.float() - mean) @ rotation

    fitted, held_out = (
        rows.to(y.device) for rows in stratified_split(y.cpu(), validation_fraction, seed)
    )
    accuracies, start = _choose(x, y, penalties, fitted, held_out)
    chosen = penalties[accuracies.index(max(accuracies))]
    model = fit_logistic(x, y, num_classes=len(classes), penalty=chosen, start=start)
    logits = scores(model, (test.float() - mean) @ rotation)
    best = classes[logits.topk(min(5, len(classes)), dim=1).indices]
    predictions = best[:, 0].contiguous()
    return LinearResult(
        accuracy=_mean(predictions == test_labels),
        penalty=chosen,
        predictions=predictions,
        best=best,
        margins=margins(logits, torch.searchsorted(classes, test_labels)),
        penalties=tuple(penalties),
        validation_accuracies=tuple(accuracies),
    )


def _choose(
    x: Tensor, y: Tensor, penalties: list[float], fitted: Tensor, held_out: Tensor
) -> tuple[list[float], tuple[Tensor, Tensor]]:
    """Validation accuracies down the path, each fit begun at the last; the first best model."""
    x_fit, y_fit, x_held_out, y_held_out = x[fitted], y[fitted], x[held_out], y[held_out]
    count = int(y.max()) + 1
    model, models, accuracies = None, [], []
    for penalty in penalties:
        model = fit_logistic(
            x_fit,
            y_fit,
            num_classes=count,
            penalty=penalty,
            start=model,
            tolerance=_PATH_TOLERANCE,
        )
        models.append(model)
        accuracies.append(_mean(scores(model, x_held_out).argmax(1) == y_held_out))
    return accuracies, models[accuracies.index(max(accuracies))]


def _principal_axes(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean `[p]`, and the rotation `[p, p]` to principal axes over the root mean square."""
    # In float64, where the eigenvectors of collapsed features converge too; a part at a time.
    mean = x.mean(0, dtype=torch.double)
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.double, device=x.device)
    for part in x.split(_PART_ROWS):
        centred = part - mean
        covariance.addmm_(centred.T, centred, alpha=1 / len(x))
    scale = covariance.diagonal().mean().sqrt()
    rotation = torch.linalg.eigh(covariance).eigenvectors
    return mean.float(), (rotation / torch.where(scale > 0, scale, 1.0)).float()


def _mean(right: Tensor) -> float:
    return right.double().mean().item()


def _confusion(classes: Tensor, labels: Tensor, predictions: Tensor) -> np.ndarray:
    """Test images by their right class and the answer, `[c, c]`."""
    c = len(classes)
    places = torch.searchsorted(classes, labels) * c + torch.searchsorted(classes, predictions)
    return places.bincount(minlength=c * c).reshape(c, c).cpu().numpy()


def _classes(labels: Tensor, test_labels: Tensor) -> tuple[Tensor, Tensor]:
    """The sorted classes of the training labels, and the training labels as places among them."""
    check_classes("the linear probe", labels)
    check_seen("the linear probe", labels, test_labels)
    classes, places, counts = labels.long().unique(return_inverse=True, return_counts=True)
    if counts.min() < 2:
        raise UserError(
            "the linear probe needs at least 2 training images of every class, one of them to "
            f"validate on; got 1 of class {classes[counts.argmin()]}; use more labelled images"
        )
    return classes, places


def _check(train: Tensor, test: Tensor, penalties: list[float], fraction: float) -> None:
    if not penalties or min(penalties) <= 0:
        raise UserError(f"the linear probe's penalties must be positive; got {penalties}")
    if not 0 < fraction < 1:
        raise UserError(
            f"the linear probe's validation_fraction must lie between 0 and 1; got {fraction}"
        )
    check_tables("the linear probe", train, test)
