"""The metrics of transfer against plain loops and scikit-learn, and their comparison."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    precision_recall_curve,
    recall_score,
)

from headwise.errors import UserError
from headwise.evaluation.statistics.metrics import (
    Metric,
    answers_name,
    average_precision_11,
    compare_values,
    mean_per_class,
    score,
)


def by_loops(scores: np.ndarray, targets: np.ndarray) -> float:
    """One class, from the definition: for every recall and every threshold."""
    best = []
    for k in range(11):
        reached = [0.0]
        for threshold in scores:
            said = scores >= threshold
            if 10 * targets[said].sum() >= k * targets.sum():
                reached.append(targets[said].mean())
        best.append(max(reached))
    return float(np.mean(best)) if targets.any() else 0.0


def by_sklearn(scores: np.ndarray, targets: np.ndarray) -> float:
    precision, recall, _ = precision_recall_curve(targets, scores)
    # Its last point, recall 0 with precision 1, is no threshold.
    precision, recall = precision[:-1], recall[:-1]
    return float(np.mean([precision[recall >= k / 10 - 1e-9].max() for k in range(11)]))


rows = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30)


@given(rows)
@settings(deadline=None, max_examples=100)
def test_average_precision_is_that_of_the_loops_with_ties_too(answers):
    scores, targets = np.array(answers, dtype=float).T
    found = average_precision_11(
        torch.from_numpy(scores)[:, None], torch.from_numpy(targets)[:, None].bool()
    )
    assert found.item() == pytest.approx(by_loops(scores, targets), abs=1e-12)


def test_average_precision_is_scikit_learns():
    generator = torch.Generator().manual_seed(0)
    targets = torch.rand(500, 6, generator=generator) < 0.2
    scores = targets + 1.5 * torch.randn(500, 6, generator=generator)
    found = average_precision_11(scores, targets)
    columns = list(zip(scores.T.numpy(), targets.T.numpy(), strict=True))
    np.testing.assert_allclose(found, [by_sklearn(*column) for column in columns])
    # Without interpolation it is lower, and near on many images.
    plain = np.array([average_precision_score(t, s) for s, t in columns])
    assert (plain < found.numpy()).all()
    np.testing.assert_allclose(found, plain, atol=0.06)


def test_average_precision_of_known_rankings():
    targets = torch.tensor([[1, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]]).bool()
    scores = torch.tensor([[4.0, 2.0, 1.0], [3.0, 4.0, 2.0], [2.0, 1.0, 3.0], [1.0, 0.0, 4.0]])
    found = average_precision_11(scores, targets)
    # First: precision 1 up to recall 0.5, then 2/3. Second: perfect. Third: nothing to find.
    torch.testing.assert_close(found, torch.tensor([(6 + 5 * 2 / 3) / 11, 1.0, 0.0]).double())
    assert score("map11", scores, targets) == pytest.approx(found[:2].mean().item())
    constant = average_precision_11(torch.zeros(4, 3), targets)
    torch.testing.assert_close(constant, torch.tensor([0.5, 0.5, 0.0]).double())


def test_accuracy_and_mean_per_class_are_scikit_learns():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(7, (300,), generator=generator).clamp(max=4) + 2
    predictions = torch.where(
        torch.rand(300, generator=generator) < 0.6,
        labels,
        torch.randint(9, (300,), generator=generator),
    )
    recalls = recall_score(labels, predictions, labels=labels.unique(), average=None)
    assert mean_per_class(predictions, labels) == pytest.approx(recalls.mean(), rel=1e-12)
    assert score("per_class", predictions, labels) == mean_per_class(predictions, labels)
    assert score("top1", predictions, labels) == pytest.approx(accuracy_score(labels, predictions))
    rare = torch.tensor([0, 0, 0, 1])
    assert mean_per_class(torch.zeros(4).long(), rare) == 0.5


def answers(
    metric: Metric, seed: int, *, noise: float, scale: float = 1.0
) -> dict[str, np.ndarray]:
    """Of one system, on images that do not depend on the seed."""
    fixed = torch.Generator().manual_seed(99)
    generator = torch.Generator().manual_seed(seed)
    if metric == "map11":
        truth = torch.rand(60, 3, generator=fixed) < 0.3
        given = scale * (truth + noise * torch.randn(60, 3, generator=generator))
    else:
        truth = torch.randint(5, (120,), generator=fixed).clamp(max=3)
        wrong = torch.rand(120, generator=generator) < noise
        given = torch.where(wrong, (truth + 1) % 4, truth)
    return {answers_name(metric): given.numpy(), "truth": truth.numpy()}


@pytest.mark.parametrize("metric", ["per_class", "map11"])
def test_systems_that_differ_are_told_apart_and_equal_ones_are_not(metric, monkeypatch):
    monkeypatch.setattr("headwise.evaluation.statistics.tests.RESAMPLES", 100)
    monkeypatch.setattr(
        "headwise.evaluation.statistics.metrics.paired_score_test", fewer_permutations
    )
    good, bad = (
        answers(metric, 0, noise=0.2),
        answers(metric, 1, noise=0.6 if metric != "map11" else 2),
    )
    test = compare_values(metric, good, bad, seed=0)
    assert test.p_value < 0.02
    assert test.difference > 0.1
    assert test.interval[0] > 0
    same = compare_values(metric, good, good, seed=0)
    assert (same.difference, same.p_value) == (0.0, 1.0)
    # The scale of a system's scores is its own affair.
    p_values = [
        compare_values(
            metric,
            answers(metric, 2 * seed, noise=0.5),
            answers(metric, 2 * seed + 1, noise=0.5, scale=100.0),
            seed=seed,
        ).p_value
        for seed in range(20)
    ]
    assert sum(p < 0.05 for p in p_values) <= binom.ppf(0.999, 20, 0.05)


def fewer_permutations(*inputs, seed):
    from headwise.evaluation.statistics.tests import paired_score_test

    return paired_score_test(*inputs, seed=seed, permutations=99)


def test_other_images_cannot_be_compared():
    a, b = answers("per_class", 0, noise=0.1), answers("per_class", 1, noise=0.1)
    b["truth"] = b["truth"][::-1].copy()
    with pytest.raises(UserError, match="judged on the same test images"):
        compare_values("per_class", a, b, seed=0)
