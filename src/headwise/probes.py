"""Probes as functions: classes from frozen vectors, on NumPy arrays or torch tensors.

They are those of `headwise evaluate` (docs/protocols.md), without a run, a table or a command.
Vectors are `[n, p]`, of any numbers; labels are numbers or, in NumPy, text. Answers are labels, of
the kind that was given. `accuracy` and `balanced_accuracy` score them, from 0 to 1.
"""

from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from headwise.errors import UserError
from headwise.evaluation.protocols.knn import knn_predict, nearest_rows
from headwise.evaluation.protocols.linear import linear_probe
from headwise.evaluation.statistics.metrics import mean_per_class
from headwise.features.extract import check_tables

Array = TypeVar("Array", np.ndarray, Tensor)


def knn(
    train: Shaped[Array, "n p"],
    labels: Shaped[Array, " n"],
    test: Shaped[Array, "m p"],
    *,
    k: int = 10,
    temperature: float | None = None,
) -> Shaped[Array, " m"]:
    """The class that the `k` training rows of highest cosine similarity vote for.

    With `temperature` None each has one vote, and a tie goes to the class whose votes are more
    similar in sum (the protocol `knn`). Otherwise a vote weighs exp(similarity / temperature), as
    in instance discrimination, arXiv 1805.01978 (`knn_weighted`: k = 200, temperature 0.1). Raises
    `UserError` for `k` outside 1..n, a temperature that is not positive, arrays that do not fit,
    and values that are not finite.
    """
    x, y, classes = _training("knn", train, labels)
    answers = knn_predict(
        x, y, _rows("knn", test, x), k=k, temperature=temperature, num_classes=len(classes)
    )
    return _named(answers, classes)


def knn_self(vectors: Shaped[Array, "n p"], labels: Shaped[Array, " n"]) -> Shaped[Array, " n"]:
    """The label of each row's nearest other row by cosine similarity: Deep Fusion's "unsupervised"
    number, arXiv 2403.18681, from the authors' code. Raises `UserError` as `knn`."""
    x, y, classes = _training("knn_self", vectors, labels)
    nearest = torch.cat([index for _, index in nearest_rows(x, x, 1, leave_one_out=True)])
    return _named(y[nearest[:, 0]], classes)


def linear(
    train: Shaped[Array, "n p"],
    labels: Shaped[Array, " n"],
    test: Shaped[Array, "m p"],
    *,
    seed: int = 0,
) -> Shaped[Array, " m"]:
    """The answers of L2-regularised multinomial logistic regression by L-BFGS, SimCLR's transfer
    protocol, arXiv 2002.05709, B.8.

    λ is one of 45 from 1e-6 to 1e5, that of highest accuracy on a fifth of every class of the
    training rows, which `seed` draws; then the probe is fitted on all of them. Raises `UserError`
    for fewer than two classes, a class of one row, arrays that do not fit, and values that are not
    finite.
    """
    x, y, classes = _training("linear", train, labels)
    rows = _rows("linear", test, x)
    # The probe also scores its answers; their labels are not known here.
    unknown = y[:1].repeat(len(rows))
    return _named(linear_probe(x, y, rows, unknown, seed=seed).predictions, classes)


def accuracy(answers: Shaped[Array, " m"], labels: Shaped[Array, " m"]) -> float:
    """The share of answers that are right. Raises `UserError` for other lengths."""
    right, _ = _scored("accuracy", answers, labels)
    return right.double().mean().item()


def balanced_accuracy(answers: Shaped[Array, " m"], labels: Shaped[Array, " m"]) -> float:
    """The mean over the classes among `labels` of the share of their rows that are right. Raises
    `UserError` for other lengths."""
    right, places = _scored("balanced_accuracy", answers, labels)
    return mean_per_class(torch.where(right, places, -1), places)


def _training(
    who: str, vectors: Shaped[Array, "n p"], labels: Shaped[Array, " n"]
) -> tuple[Float[Tensor, "n p"], Int64[Tensor, " n"], Shaped[Array, " c"]]:
    """The vectors in float32, the labels as places among the sorted classes, and the classes."""
    x = _rows(who, vectors)
    if len(labels) != len(x) or labels.ndim != 1:
        raise UserError(
            f"{who} needs one label for each of {len(x)} rows; got shape {tuple(labels.shape)}"
        )
    classes, places = _places(labels)
    return x, places.to(x.device), classes


def _rows(
    who: str, vectors: Shaped[Array, "n p"], like: Float[Tensor, "m p"] | None = None
) -> Float[Tensor, "n p"]:
    x = torch.as_tensor(vectors).float()
    if x.ndim != 2 or (like is not None and x.shape[1] != like.shape[1]):
        wide = "" if like is None else f" of {like.shape[1]} columns"
        raise UserError(f"{who} needs vectors [n, p]{wide}; got shape {tuple(x.shape)}")
    check_tables(who, x, x)
    return x


def _places(labels: Any) -> tuple[Any, Int64[Tensor, " n"]]:
    """The sorted classes, of the kind that was given, and each label's place among them."""
    if isinstance(labels, Tensor):
        return labels.unique(return_inverse=True)
    classes, places = np.unique(labels, return_inverse=True)
    return classes, torch.from_numpy(places)


def _named(places: Int64[Tensor, " m"], classes: Any) -> Any:
    """The classes at these places."""
    if isinstance(classes, Tensor):
        return classes[places.to(classes.device)]
    return classes[places.cpu().numpy()]


def _scored(
    who: str, answers: Shaped[Array, " m"], labels: Shaped[Array, " m"]
) -> tuple[Tensor, Int64[Tensor, " m"]]:
    """Which answers are right, and the labels as places."""
    if answers.shape != labels.shape or labels.ndim != 1 or not len(labels):
        raise UserError(
            f"{who} needs as many answers as labels, at least one; "
            f"got shapes {tuple(answers.shape)} and {tuple(labels.shape)}"
        )
    _, places = _places(labels)
    return torch.as_tensor(answers == labels), places
