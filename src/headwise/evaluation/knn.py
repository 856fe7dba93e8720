"""The k-nearest-neighbours probe: cosine similarity, no training, deterministic."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int64
from torch import Tensor

from headwise.errors import UserError

# Similarities held at once: 64 MiB of float32, whatever the sizes of the tables.
_BLOCK_ELEMENTS = 1 << 24


def knn_accuracy(
    train: Float[Tensor, "n p"],
    train_labels: Int[Tensor, " n"],
    test: Float[Tensor, "m p"],
    test_labels: Int[Tensor, " m"],
    *,
    k: int,
    temperature: float | None,
    num_classes: int,
) -> float:
    """The fraction of test rows that `knn_predict` gets right, 0 to 1."""
    if len(test) == 0:
        raise UserError("the knn probe needs at least one test row; got none")
    predictions = knn_predict(
        train, train_labels, test, k=k, temperature=temperature, num_classes=num_classes
    )
    return (predictions == test_labels).double().mean().item()


@torch.no_grad()
def knn_predict(
    train: Float[Tensor, "n p"],
    train_labels: Int[Tensor, " n"],
    test: Float[Tensor, "m p"],
    *,
    k: int,
    temperature: float | None,
    num_classes: int,
) -> Int64[Tensor, " m"]:
    """The class that the k training rows of highest cosine similarity vote for.

    With `temperature=None` every neighbour has one vote, and a tie goes to the class whose votes
    are nearer in sum. Otherwise a vote weighs exp(similarity / temperature), as in instance
    discrimination (arXiv 1805.01978; k = 200, τ = 0.07). Float32 with autocast off; memory beyond
    the tables is bounded. All tensors live on one device.

    Raises `UserError` for k outside 1..n, a temperature that is not positive, labels outside
    0..num_classes−1, and features that are not finite.
    """
    _check(train, train_labels, test, k, temperature, num_classes)
    labels = train_labels.long()
    with torch.autocast(train.device.type, enabled=False):
        candidates = F.normalize(train.float(), dim=1).T
        rows = max(1, _BLOCK_ELEMENTS // len(train))
        predictions = [
            _vote(
                F.normalize(block.float(), dim=1) @ candidates, labels, k, temperature, num_classes
            )
            for block in test.split(rows)
        ]
    return torch.cat(predictions)


def _vote(
    similarities: Tensor, labels: Tensor, k: int, temperature: float | None, num_classes: int
) -> Tensor:
    nearest, index = similarities.topk(k, dim=1)
    nearest = nearest.double()
    if temperature is None:
        # k similarities over 4k stay below a quarter vote: they order ties and nothing else.
        weights = 1 + nearest / (4 * k)
    else:
        # Taking off each row's highest similarity scales its votes alike, and nothing overflows.
        weights = ((nearest - nearest[:, :1]) / temperature).exp()
    votes = weights.new_zeros(len(similarities), num_classes)
    return votes.scatter_add_(1, labels[index], weights).argmax(1)


def _check(
    train: Tensor, labels: Tensor, test: Tensor, k: int, temperature: float | None, num_classes: int
) -> None:
    if not 1 <= k <= len(train):
        raise UserError(
            f"knn's k must lie in 1..{len(train)}, the number of training rows; got {k}"
        )
    if temperature is not None and not temperature > 0:
        raise UserError(
            f"knn's temperature must be positive, or None for a plain vote; got {temperature}"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(
            f"knn's training labels must lie in 0..{num_classes - 1}; "
            f"got {labels.min()}..{labels.max()}; check num_classes"
        )
    for name, x in ("training", train), ("test", test):
        if not x.isfinite().all():
            raise UserError(
                f"knn's {name} features must be finite; got NaN or infinity; "
                "did pretraining diverge?"
            )
