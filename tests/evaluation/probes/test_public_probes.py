"""The probes as functions: NumPy or torch, numbers or text, the answers of `evaluate`."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from headwise import probes
from headwise.errors import UserError
from headwise.evaluation.protocols.linear import linear_probe

DIGITS: Any = load_digits(return_X_y=True)
X, Y = DIGITS
TRAIN, LABELS, TEST, TRUTH = X[:300], Y[:300], X[300:500], Y[300:500]


def test_nearest_neighbours_are_scikit_learns() -> None:
    unit = KNeighborsClassifier(1, metric="cosine").fit(TRAIN, LABELS)
    answers = probes.knn(TRAIN, LABELS, TEST, k=1)
    assert isinstance(answers, np.ndarray)
    assert np.array_equal(answers, unit.predict(TEST))
    assert probes.accuracy(answers, TRUTH) == pytest.approx(unit.score(TEST, TRUTH))
    expected = balanced_accuracy_score(TRUTH, answers)
    assert probes.balanced_accuracy(answers, TRUTH) == pytest.approx(expected)
    others = KNeighborsClassifier(2, metric="cosine").fit(TEST, TRUTH)
    nearest: Any = others.kneighbors(TEST, return_distance=False)
    assert np.array_equal(probes.knn_self(TEST, TRUTH), TRUTH[nearest[:, 1]])


def test_the_linear_probe_is_that_of_evaluate_in_every_form() -> None:
    few = np.isin(LABELS, (0, 1, 2))
    train, labels = TRAIN[few], LABELS[few]
    words = np.array(["nil", "one", "two"])[labels]
    tensors = [torch.from_numpy(array) for array in (train, labels, TEST)]
    answers = probes.linear(*tensors)
    x, y, t = tensors[0].float(), tensors[1], tensors[2].float()
    assert torch.equal(answers, linear_probe(x, y, t, y[:1].repeat(len(t)), seed=0).predictions)
    named = probes.linear(train, words, TEST)
    assert np.array_equal(named, np.array(["nil", "one", "two"])[answers.numpy()])


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: probes.knn(TRAIN, LABELS[:-1], TEST), "one label for each of 300 rows"),
        (lambda: probes.knn(TRAIN, LABELS, TEST[:, :3]), r"vectors \[n, p\] of 64 columns"),
        (lambda: probes.knn(TRAIN, LABELS, TEST, k=0), r"k must lie in 1\.\.300"),
        (lambda: probes.linear(TRAIN * np.nan, LABELS, TEST), "must be finite"),
        (lambda: probes.linear(TRAIN, LABELS * 0, TEST), "at least 2 classes"),
        (lambda: probes.accuracy(TRUTH, TRUTH[:3]), "as many answers as labels"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_arrays_that_do_not_fit(call, expected) -> None:
    with pytest.raises(UserError, match=expected):
        call()
