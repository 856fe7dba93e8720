"""Images of several classes: sets by name, and the linear probe for them."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from headwise.errors import UserError
from headwise.evaluation.probes.multilabel import memberships, multilabel_probe
from headwise.evaluation.statistics.metrics import score

SETS = ("", "car", "car+person", "dog", "dog+person")
FEW = (10.0, 1e-2, 1e-4)


def test_sets_are_spelled_with_plus():
    classes, sets = memberships(SETS)
    assert classes == ("car", "dog", "person")
    assert sets.int().tolist() == [[0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 1, 0], [0, 1, 1]]
    classes, sets = memberships(("a", "b"))  # one class an image is a set too
    assert classes == ("a", "b")
    assert sets.int().tolist() == [[1, 0], [0, 1]]


def table(n: int, seed: int, noise: float):
    """Features that hold the classes along directions of unlike size, off centre."""
    generator = torch.Generator().manual_seed(seed)
    _, sets = memberships(SETS)
    labels = torch.randint(len(SETS), (n,), generator=generator)
    directions = torch.randn(3, 10, generator=torch.Generator().manual_seed(7))
    x = sets[labels].float() @ directions + noise * torch.randn(n, 10, generator=generator)
    return 5 + 3 * x, labels, sets


def test_planted_classes_are_read_and_noise_is_not():
    train, labels, sets = table(200, 0, noise=0.01)
    test, test_labels, _ = table(100, 1, noise=0.01)
    scores, _ = multilabel_probe(train, labels, sets, test, seed=0, penalties=FEW)
    assert score("map11", scores, sets[test_labels]) == 1.0
    scores, _ = multilabel_probe(train, labels, sets, test, seed=0, penalties=[1e-4])
    assert torch.equal(scores > 0, sets[test_labels])  # log-odds
    blind = torch.randn(200, 10, generator=torch.Generator().manual_seed(2))
    scores, _ = multilabel_probe(blind, labels, sets, blind.flip(0)[:100], seed=0, penalties=FEW)
    chance = sets[test_labels].double().mean().item()
    assert score("map11", scores, sets[test_labels]) == pytest.approx(chance, abs=0.15)


def test_every_class_has_scikit_learns_logistic_regression():
    train, labels, sets = table(300, 0, noise=1.0)
    test = table(50, 1, noise=1.0)[0]
    scores, penalty = multilabel_probe(train, labels, sets, test, seed=0, penalties=[1e-2])
    assert penalty == 1e-2
    centred = (train - train.mean(0)).double()
    scale = centred.square().mean().sqrt()
    there = ((test - train.mean(0)).double() / scale).numpy()
    for column, targets in zip(scores.T, sets[labels].T, strict=True):
        model = LogisticRegression(C=1 / (300 * 1e-2), tol=1e-10, max_iter=20000)
        model.fit((centred / scale).numpy(), targets.numpy())
        np.testing.assert_allclose(column, model.decision_function(there), atol=2e-3)


def test_the_penalty_is_chosen_on_training_rows():
    train, labels, sets = table(120, 0, noise=2.0)
    test = table(20, 1, noise=2.0)[0]
    _, chosen = multilabel_probe(train, labels, sets, test, seed=0, penalties=FEW)
    _, again = multilabel_probe(train, labels, sets, test * 100, seed=0, penalties=FEW)
    assert chosen == again
    easy, labels, sets = table(120, 0, noise=0.0)
    _, chosen = multilabel_probe(easy, labels, sets, test, seed=0, penalties=FEW)
    assert chosen == max(FEW)  # of equals, the largest


def test_errors_name_what_must_hold():
    train, labels, sets = table(40, 0, noise=1.0)
    with pytest.raises(UserError, match="must be finite"):
        multilabel_probe(train / 0, labels, sets, train, seed=0)
    with pytest.raises(UserError, match="2 training images of the same classes"):
        multilabel_probe(train[:5], torch.arange(5), sets, train, seed=0)
