"""The k-nearest-neighbours probe: cosine similarity, no training, deterministic."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int64
from torch import Tensor

from headwise.errors import UserError
from headwise.evaluation.probes.labels import chance, check_classes, check_seen
from headwise.evaluation.protocols.description import Description
from headwise.evaluation.statistics.metrics import answer_arrays, per_class_value
from headwise.features.extract import Features, check_tables, finite
from headwise.runs.results import Value, mean_value

KNN = Description(
    title="k nearest neighbours",
    definition=(
        "A test image gets the class that its 10 nearest training images vote for, by cosine "
        "similarity of the features. Accuracy on the test images."
    ),
    labels={"knn": "kNN"},
    section="taps",
    draws=False,
)
KNN_WEIGHTED = Description(
    title="Weighted nearest neighbours",
    definition=(
        "As kNN with 200 neighbours, where a vote weighs more the more similar the neighbour is."
    ),
    labels={"knn_weighted": "weighted kNN"},
    section="taps",
    source="arXiv 1805.01978",
    draws=False,
)
KNN_SELF = Description(
    title="Nearest other test image",
    definition=(
        "Whether the nearest other test image has the same label. Training images are not used."
    ),
    labels={"knn_self": "1-NN among test images"},
    section="taps",
    source="arXiv 2403.18681",
    draws=False,
)

# Similarities held at once: 64 MiB of float32, whatever the sizes of the tables. A block spans a
# part of a long training table, so that it has enough test rows to keep the arithmetic busy.
_BLOCK_ELEMENTS = 1 << 24
_BLOCK_COLUMNS = 1 << 16


def knn(tap: str, train: Features, test: Features, *, num_classes: int) -> Iterator[Value]:
    """k = 10, one vote each: the "kNN10" of tables on CIFAR-10. With balanced accuracy, as all
    of these."""
    k = min(10, len(train.vectors))
    value = _value("knn", tap, train, test, num_classes=num_classes, k=k)
    yield from _with_per_class(dataclasses.replace(value, settings={"k": k}), test)


def knn_weighted(tap: str, train: Features, test: Features, *, num_classes: int) -> Iterator[Value]:
    """k = 200, votes that weigh exp(similarity / 0.1)."""
    k = min(200, len(train.vectors))
    value = _value("knn_weighted", tap, train, test, num_classes=num_classes, k=k, temperature=0.1)
    value = dataclasses.replace(value, settings={"k": k, "temperature": 0.1})
    yield from _with_per_class(value, test)


def knn_self(tap: str, train: Features, test: Features) -> Iterator[Value]:
    """Whether the nearest *other* test image has the same label: Deep Fusion's "unsupervised"
    number (arXiv 2403.18681, from the authors' code). The training features have no say."""
    x, labels = test.vectors, test.labels
    assert labels is not None, "labels were checked"
    check_classes(f"knn_self/{tap}", labels)
    finite("knn_self's", x)
    neighbours = [index for _, index in nearest_rows(x, x, 1, leave_one_out=True)]
    predicted = labels[torch.cat(neighbours)[:, 0]]
    value = mean_value(
        "knn_self",
        "knn_self",
        tap,
        predicted == labels,
        chance=chance(labels, labels),  # it learns from the test images themselves
        settings={"k": 1},
        arrays={"predictions": predicted.int().cpu().numpy()},
    )
    yield from _with_per_class(value, test)


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
    predictions = knn_predict(
        train, train_labels, test, k=k, temperature=temperature, num_classes=num_classes
    )
    return (predictions == test_labels).double().mean().item()


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
    0..num_classes−1, no test rows, and features that are not finite.
    """
    blocks = knn_votes(
        train, train_labels, test, k=k, temperature=temperature, num_classes=num_classes
    )
    return torch.cat([votes.argmax(1) for votes in blocks])


def knn_votes(
    train: Float[Tensor, "n p"],
    train_labels: Int[Tensor, " n"],
    test: Float[Tensor, "m p"],
    *,
    k: int,
    temperature: float | None,
    num_classes: int,
) -> Iterator[Float[Tensor, "b c"]]:
    """What each class gets of the votes, for one block of test rows after the other; errors as in
    `knn_predict`."""
    _check(train, train_labels, k, temperature, num_classes)
    check_tables("the knn probe", train, test)
    labels = train_labels.long()
    for similarities, index in nearest_rows(train, test, k):
        yield _votes(similarities, labels[index], temperature, num_classes)


@torch.no_grad()
def nearest_rows(
    train: Float[Tensor, "n p"], test: Float[Tensor, "m p"], k: int, *, leave_one_out: bool = False
) -> Iterator[tuple[Float[Tensor, "b k"], Int64[Tensor, "b k"]]]:
    """For one block of test rows after the other: the highest cosine similarities to training
    rows, falling, and the numbers of those rows. With `leave_one_out` the two tables are the same,
    and no row is its own neighbour."""
    # Scales the columns of the similarities, in the place of a normalised copy of the table.
    scale = 1 / train.float().norm(dim=1).clamp_min(1e-12)
    columns = min(len(train), _BLOCK_COLUMNS)
    rows = max(1, _BLOCK_ELEMENTS // columns)
    for top in range(0, len(test), rows):
        block = F.normalize(test[top : top + rows].float(), dim=1)
        best, index = [], []
        for left in range(0, len(train), columns):
            part = slice(left, left + columns)
            with torch.autocast(block.device.type, enabled=False):
                similarities = (block @ train[part].float().T).mul_(scale[part])
            if leave_one_out:
                similarities.diagonal(top - left).fill_(-torch.inf)
            found, places = similarities.topk(min(k, similarities.shape[1]), dim=1)
            best.append(found)
            index.append(places + left)
        found, places = torch.cat(best, 1).topk(k, dim=1)
        yield found, torch.cat(index, 1).gather(1, places)


def _value(
    protocol: str,
    tap: str,
    train: Features,
    test: Features,
    *,
    num_classes: int,
    k: int,
    temperature: float | None = None,
) -> Value:
    labels, test_labels = train.labels, test.labels
    assert labels is not None, "labels were checked"
    assert test_labels is not None, "labels were checked"
    check_classes(f"{protocol}/{tap}", labels)
    check_seen(f"{protocol}/{tap}", labels, test_labels)
    parts, done = [], 0
    for votes in knn_votes(
        train.vectors,
        labels,
        test.vectors,
        k=k,
        temperature=temperature,
        num_classes=num_classes,
    ):
        parts.append(answer_arrays(votes, test_labels[done : done + len(votes)]))
        done += len(votes)
    arrays = {kind: np.concatenate([part[kind] for part in parts]) for kind in parts[0]}
    right = torch.from_numpy(arrays["predictions"]) == test_labels.cpu()
    guess = chance(labels, test_labels)
    return mean_value(protocol, protocol, tap, right, chance=guess, arrays=arrays)


def _with_per_class(value: Value, test: Features) -> Iterator[Value]:
    """The accuracy, then its mean over the classes."""
    assert test.labels is not None, "labels were checked"
    yield value
    yield per_class_value(value, test.labels)


def _votes(nearest: Tensor, labels: Tensor, temperature: float | None, num_classes: int) -> Tensor:
    """What each class gets in each row, from the similarities and the labels of its neighbours."""
    nearest = nearest.double()
    if temperature is None:
        # k similarities over 4k stay below a quarter vote: they order ties and nothing else.
        weights = 1 + nearest / (4 * nearest.shape[1])
    else:
        # Taking off each row's highest similarity scales its votes alike, and nothing overflows.
        weights = ((nearest - nearest[:, :1]) / temperature).exp()
    votes = weights.new_zeros(len(nearest), num_classes)
    return votes.scatter_add_(1, labels, weights)


def _check(
    train: Tensor, labels: Tensor, k: int, temperature: float | None, num_classes: int
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
