"""The linear probe: L2-regularised multinomial logistic regression by L-BFGS, λ from validation.

SimCLR's transfer protocol (arXiv 2002.05709, B.8): no augmentation, 45 log-spaced λ in
[1e-6, 1e5], chosen on a validation split, retrained on training and validation images together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from scipy.optimize import minimize
from torch import Tensor

from headwise import hardware, rng
from headwise.errors import UserError

PENALTIES: tuple[float, ...] = tuple(float(penalty) for penalty in np.logspace(5, -6, 45))
"""λ, from large to small."""

# On the way down the path a search ends at decreases of the objective below this: against the
# default of `fit_logistic`, a fifth of the time, and the same λ where it was tried.
_PATH_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class LinearResult:
    accuracy: float
    """The fraction of test rows that are right, 0 to 1."""
    penalty: float
    """The λ of highest validation accuracy; of equals, the largest."""
    predictions: Int64[Tensor, " m"]
    """The class of each test row."""
    penalties: tuple[float, ...]
    """The λ that were tried, from large to small."""
    validation_accuracies: tuple[float, ...]
    """One for each of `penalties`."""


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

    accuracies, best = _choose(x, y, penalties, *_split(y, validation_fraction, seed))
    chosen = penalties[accuracies.index(max(accuracies))]
    model = fit_logistic(x, y, num_classes=len(classes), penalty=chosen, start=best)
    predictions = classes[_predict(model, (test.float() - mean) @ rotation)]
    return LinearResult(
        accuracy=_mean(predictions == test_labels),
        penalty=chosen,
        predictions=predictions,
        penalties=tuple(penalties),
        validation_accuracies=tuple(accuracies),
    )


@torch.no_grad()
def fit_logistic(
    x: Float[Tensor, "n p"],
    y: Int[Tensor, " n"],
    *,
    num_classes: int,
    penalty: float,
    start: tuple[Float[Tensor, "c p"], Float[Tensor, " c"]] | None = None,
    tolerance: float = 1e-8,
) -> tuple[Float[Tensor, "c p"], Float[Tensor, " c"]]:
    """Weight and bias that minimise mean cross-entropy + penalty/2 · ‖weight‖² (bias is free).

    The tables stay on their device in float32; the parameters are float64 on the CPU. L-BFGS sees
    each weight divided by its `_step_sizes`, which changes no minimum: on features along their
    principal axes it takes a third of the evaluations. `start` is a point to begin from. Decreases
    of the objective below `tolerance` (relative) end the search; at the default a float32 loss is
    still smooth, and ten times more or less changed no prediction but near ties. Centre the
    features: where their mean dwarfs their spread, float32 ends the search early.
    """
    x, y = x.float(), y.long()
    steps = _step_sizes(x, num_classes, penalty)
    begin = np.zeros((num_classes, len(steps)))
    if start is not None:
        begin[:] = torch.column_stack(start).double().cpu().numpy()

    def objective(scaled: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = scaled.reshape(begin.shape) * steps
        loss, gradient = _cross_entropy(parameters, x, y)
        weight = parameters[:, :-1]
        gradient[:, :-1] += penalty * weight
        return loss + penalty / 2 * np.square(weight).sum(), (gradient * steps).ravel()

    # Its exit status is not read: besides success it can only say that float32 allows no further
    # decrease, or that 2,000 iterations were not enough, where the point is still the best known.
    options = {"ftol": tolerance, "gtol": 1e-8, "maxiter": 2000, "maxfun": 4000}
    with hardware.threads_for(x.numel() * num_classes):
        found = minimize(
            objective, (begin / steps).ravel(), jac=True, method="L-BFGS-B", options=options
        )
    parameters = torch.from_numpy(found.x.reshape(begin.shape) * steps).to(x.device, x.dtype)
    return parameters[:, :-1].contiguous(), parameters[:, -1].contiguous()


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
        accuracies.append(_mean(_predict(model, x_held_out) == y_held_out))
    return accuracies, models[accuracies.index(max(accuracies))]


def _cross_entropy(parameters: np.ndarray, x: Tensor, y: Tensor) -> tuple[float, np.ndarray]:
    """Mean cross-entropy and its gradient by `parameters`, `[c, p + 1]`, the bias last."""
    theta = torch.from_numpy(parameters).to(x.device, x.dtype)
    rows = torch.arange(len(x), device=x.device)
    with torch.autocast(x.device.type, enabled=False):
        # Classes first: a softmax over the first of two dimensions is up to 20 × faster on a CPU.
        logits = torch.addmm(theta[:, -1:], theta[:, :-1], x.T)
        log_probabilities = logits.log_softmax(0)
        loss = -log_probabilities[y, rows].double().mean()
        residual = log_probabilities.exp_()
        residual[y, rows] -= 1
        gradient = torch.column_stack([residual @ x, residual.sum(1)]) / len(x)
    return loss.item(), gradient.double().cpu().numpy()


def _step_sizes(x: Tensor, num_classes: int, penalty: float) -> np.ndarray:
    """1/√curvature of the objective along each weight and the bias, at equal probabilities."""
    spread = (1 - 1 / num_classes) / num_classes
    curvature = spread * x.square().mean(0).double().cpu().numpy() + penalty
    return 1 / np.sqrt(np.append(curvature, spread))


def _principal_axes(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean `[p]`, and the rotation `[p, p]` to principal axes over the root mean square."""
    # In float64: the eigenvectors of collapsed features do not converge in float32.
    x = x.double()
    mean = x.mean(0)
    centred = x - mean
    covariance = centred.T @ centred / len(x)
    scale = covariance.diagonal().mean().sqrt()
    rotation = torch.linalg.eigh(covariance).eigenvectors
    return mean.float(), (rotation / torch.where(scale > 0, scale, 1.0)).float()


def _predict(model: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
    weight, bias = model
    return torch.addmm(bias, x, weight.T).argmax(1)


def _mean(right: Tensor) -> float:
    return right.double().mean().item()


def _split(y: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Row numbers to fit on and to validate on: of every class its fraction, and at least one."""
    generator = rng.generator(seed, "linear", "validation")
    fitted, held_out = [], []
    for members in (torch.nonzero(y.cpu() == label).ravel() for label in range(int(y.max()) + 1)):
        members = members[torch.randperm(len(members), generator=generator)]
        size = min(max(round(fraction * len(members)), 1), len(members) - 1)
        held_out.append(members[:size])
        fitted.append(members[size:])
    fit, validate = (torch.cat(rows).sort().values.to(y.device) for rows in (fitted, held_out))
    return fit, validate


def _classes(labels: Tensor, test_labels: Tensor) -> tuple[Tensor, Tensor]:
    """The sorted classes of the training labels, and the training labels as places among them."""
    classes, places, counts = labels.long().unique(return_inverse=True, return_counts=True)
    if len(classes) < 2:
        raise UserError(
            f"the linear probe needs training images of at least 2 classes; got {len(classes)}"
        )
    if counts.min() < 2:
        raise UserError(
            "the linear probe needs at least 2 training images of every class, one of them to "
            f"validate on; got 1 of class {classes[counts.argmin()]}; use more labelled images"
        )
    unseen = test_labels[~torch.isin(test_labels, classes)]
    if len(unseen):
        raise UserError(
            "the linear probe's test labels must be among its training labels; "
            f"got class {unseen[0]} in the test split only"
        )
    return classes, places


def _check(train: Tensor, test: Tensor, penalties: list[float], fraction: float) -> None:
    if not penalties or min(penalties) <= 0:
        raise UserError(f"the linear probe's penalties must be positive; got {penalties}")
    if not 0 < fraction < 1:
        raise UserError(
            f"the linear probe's validation_fraction must lie between 0 and 1; got {fraction}"
        )
    if len(test) == 0:
        raise UserError("the linear probe needs at least one test row; got none")
    for name, features in (("training", train), ("test", test)):
        if not features.isfinite().all():
            raise UserError(
                f"the linear probe's {name} features must be finite; got NaN or infinity; "
                "did pretraining diverge?"
            )
