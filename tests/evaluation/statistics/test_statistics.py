"""Paired tests against SciPy's, on null data and on planted differences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, kstest, permutation_test

from headwise.errors import UserError
from headwise.evaluation.statistics.tests import (
    bootstrap,
    paired_permutation_test,
    paired_score_test,
)


def pair(n: int, seed: int, *, gap: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Right or wrong of two systems that find the same images hard; `a` is right more often by
    `gap`."""
    generator = torch.Generator().manual_seed(seed)
    ease = 0.2 + 0.6 * torch.rand(n, generator=generator)
    a = torch.rand(n, generator=generator) < ease + gap
    b = torch.rand(n, generator=generator) < ease
    return a.double(), b.double()


def scipys(a: torch.Tensor, b: torch.Tensor) -> float:
    """All sign flips, one by one."""
    found = permutation_test(
        (a.numpy(), b.numpy()),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    return float(found.pvalue)


@pytest.mark.parametrize("seed", range(4))
def test_right_and_wrong_is_tested_exactly(seed):
    a, b = pair(12, seed, gap=0.3)
    test = paired_permutation_test(a, b, seed=0, permutations=1)
    assert test.p_value == pytest.approx(scipys(a, b), abs=1e-12)
    a, b = pair(500, seed, gap=0.05)
    better, worse = int((a > b).sum()), int((a < b).sum())
    test = paired_permutation_test(a, b, seed=0, permutations=1)
    assert test.p_value == pytest.approx(binomtest(better, better + worse).pvalue, abs=1e-12)
    assert test.difference == pytest.approx((better - worse) / 500)
    assert test.n == 500


@pytest.mark.parametrize("gap", [0.0, 0.5, 1.0])
def test_other_numbers_are_tested_as_scipy_does(gap):
    generator = torch.Generator().manual_seed(int(10 * gap))
    a, b = torch.randn(2, 12, generator=generator).double()
    exact = scipys(a + gap, b)
    test = paired_permutation_test(a + gap, b, seed=0, permutations=20_000)
    noise = 4 * np.sqrt(exact * (1 - exact) / 20_000)
    assert test.p_value == pytest.approx(exact, abs=noise + 1e-4)


def test_the_smallest_p_value_counts_the_observed_signs():
    a = torch.linspace(1, 2, 50)
    test = paired_permutation_test(a, torch.zeros(50), seed=0, permutations=999)
    assert test.p_value == 1 / 1000


def test_permutations_in_blocks_are_as_many_as_asked_for(monkeypatch):
    monkeypatch.setattr("headwise.evaluation.statistics.tests._BLOCK_ELEMENTS", 200)
    a = torch.linspace(1, 2, 30)
    test = paired_permutation_test(a, torch.zeros(30), seed=0, permutations=99)
    assert test.p_value == 1 / 100


def test_on_null_data_p_values_are_uniform_and_few_differences_are_found(monkeypatch):
    monkeypatch.setattr("headwise.runs.results.RESAMPLES", 10)  # the intervals are not read
    found = []
    for seed in range(300):
        generator = torch.Generator().manual_seed(seed)
        a, b = torch.randn(2, 40, generator=generator)
        found.append(paired_permutation_test(a, b, seed=seed, permutations=400).p_value)
    assert kstest(found, "uniform").pvalue > 0.01
    discrete = [paired_permutation_test(*pair(300, seed), seed=0).p_value for seed in range(400)]
    for p_values in (found, discrete):
        rejected = sum(p < 0.05 for p in p_values)
        assert rejected <= binom.ppf(0.999, len(p_values), 0.05)
    assert sum(p < 0.05 for p in discrete) >= binom.ppf(0.001, 400, 0.02)


def test_planted_differences_are_found_and_the_interval_covers_them():
    found, covered = 0, 0
    for seed in range(60):
        test = paired_permutation_test(*pair(600, seed, gap=0.12), seed=seed)
        found += test.p_value < 0.05 and test.difference > 0
        covered += test.interval[0] <= 0.12 <= test.interval[1]
    assert found >= 55
    assert covered >= binom.ppf(0.001, 60, 0.95)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
@settings(deadline=None, max_examples=50)
def test_order_of_images_and_of_systems_does_not_matter(answers):
    a, b = torch.tensor(answers).double().T
    test = paired_permutation_test(a, b, seed=0)
    assert 0 < test.p_value <= 1
    other_way = paired_permutation_test(b.flip(0), a.flip(0), seed=0)
    assert other_way.p_value == test.p_value
    assert other_way.difference == -test.difference


def test_equal_answers_do_not_differ():
    same = paired_permutation_test(torch.ones(5), torch.ones(5), seed=0)
    assert (same.difference, same.p_value) == (0.0, 1.0)


def agreement(answers, truth) -> float:
    return (answers == truth).double().mean().item()


def test_a_score_that_is_a_mean_gets_the_same_test():
    a, b = pair(200, 3, gap=0.07)
    truth = torch.ones(200).double()
    exact = paired_permutation_test(a, b, seed=0)
    drawn = paired_score_test(agreement, a, b, truth, seed=0, permutations=4000)
    assert 0.01 < exact.p_value < 0.3
    noise = 4 * np.sqrt(exact.p_value / 4000)
    assert drawn.p_value == pytest.approx(exact.p_value, abs=noise)
    assert drawn.difference == pytest.approx(exact.difference)
    assert drawn.interval == pytest.approx(exact.interval, abs=0.02)


def test_a_score_test_is_calibrated_on_null_data(monkeypatch):
    monkeypatch.setattr("headwise.evaluation.statistics.tests.RESAMPLES", 10)
    truth = torch.ones(80).double()
    p_values = [
        paired_score_test(agreement, *pair(80, seed), truth, seed=seed, permutations=99).p_value
        for seed in range(60)
    ]
    assert sum(p < 0.05 for p in p_values) <= binom.ppf(0.999, 60, 0.05)


def test_the_bootstrap_of_a_mean_has_its_standard_error():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0)).double()
    low, high = bootstrap(lambda rows: values[rows].mean().item(), 400, seed=0)
    expected = 1.96 * values.std().item() / 20
    assert (high - low) / 2 == pytest.approx(expected, rel=0.1)
    assert low < values.mean() < high


def test_errors_name_what_must_hold():
    with pytest.raises(UserError, match=r"same images; got \(3,\) and \(4,\)"):
        paired_permutation_test(torch.ones(3), torch.ones(4), seed=0)
    with pytest.raises(UserError, match="same images"):
        paired_permutation_test(torch.ones(0), torch.ones(0), seed=0)
    with pytest.raises(UserError, match="the second system's have NaN"):
        paired_permutation_test(torch.ones(3), torch.tensor([1.0, float("nan"), 0.0]), seed=0)
