"""The probes by name, on features that were extracted once."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from headwise.data import Images
from headwise.errors import UserError, nearest
from headwise.evaluation.knn import knn_accuracy
from headwise.evaluation.linear import linear_probe
from headwise.features import Features

PROTOCOLS = ("knn", "knn_weighted", "linear")

Result = dict[str, Any]
"""A number and what it depends on: `value`, `n` test images, `standard_error`, settings."""


def check_protocols(protocols: Sequence[str]) -> None:
    for name in protocols:
        if name not in PROTOCOLS:
            raise UserError(f"--protocols must be known; got {name!r}; {nearest(name, PROTOCOLS)}")


def check_labels(train: Images, test: Images | None, spec: str) -> Images:
    """The test images. Raises `UserError` unless both splits have labels."""
    if train.labels is None:
        raise UserError(
            f"the probes need labels; {spec} has none; "
            "give labelled images: a folder for each class, or --data.label-column"
        )
    if test is None or not len(test) or test.labels is None:
        raise UserError(
            f"the probes need labelled test images; {spec} has none; "
            "add a test split or raise --data.test-fraction"
        )
    return test


def probe(
    protocols: Sequence[str], train: Features, test: Features, *, num_classes: int, seed: int
) -> Iterator[tuple[str, Result]]:
    """Each protocol's name and result, from training features to test features."""
    assert train.labels is not None, "check_labels first"
    assert test.labels is not None, "check_labels first"
    tables = (train.vectors, train.labels, test.vectors, test.labels)
    for name in protocols:
        match name:
            case "knn":
                k = min(10, len(train.vectors))
                value = knn_accuracy(*tables, k=k, temperature=None, num_classes=num_classes)
                settings: Result = {"k": k}
            case "knn_weighted":
                k = min(200, len(train.vectors))
                value = knn_accuracy(*tables, k=k, temperature=0.1, num_classes=num_classes)
                settings = {"k": k, "temperature": 0.1}
            case "linear":
                result = linear_probe(*tables, seed=seed)
                value, settings = result.accuracy, {"penalty": result.penalty}
            case _:
                raise AssertionError(name)
        n = len(test.vectors)
        error = math.sqrt(value * (1 - value) / n)
        yield name, {"value": value, "n": n, "standard_error": error, **settings}
