"""The test of heads over seeds: its error rates on planted answers, and its formula by loops."""

import numpy as np
import pytest
import torch
from planted_seeds import differences
from scipy import stats

from headwise.errors import UserError
from headwise.evaluation.statistics.crossed import crossed_test, holm, seeds_needed, verdict


@pytest.mark.parametrize(("seeds", "spread"), [(3, 0.002), (3, 0.03), (5, 0.02), (10, 0.01)])
def test_equal_heads_are_told_apart_in_about_one_case_of_twenty(seeds: int, spread: float) -> None:
    draw = np.random.default_rng(seeds)
    drawn = [differences(draw, seeds=seeds, images=200, spread=spread) for _ in range(400)]
    tests = [crossed_test(d) for d in drawn]
    wrong = sum(test.p_value < 0.05 for test in tests) / len(tests)
    covered = sum(test.interval[0] <= 0 <= test.interval[1] for test in tests) / len(tests)
    # Three standard errors above 5 %, and above the 8 % that three seeds were found to reach.
    assert wrong <= (0.08 if seeds == 3 else 0.05) + 3 * (0.05 * 0.95 / len(tests)) ** 0.5
    assert covered == pytest.approx(1 - wrong)


def test_what_ignores_the_seeds_is_wrong_more_often() -> None:
    """The planted answers are such that a test of the images alone fails on them."""
    draw = np.random.default_rng(0)
    wrong = 0
    for _ in range(100):
        d = differences(draw, seeds=1, images=1000, spread=0.02)[0]
        wrong += stats.ttest_1samp(d.numpy(), 0).pvalue < 0.05
    assert wrong > 30


def test_a_true_difference_is_shown() -> None:
    draw = np.random.default_rng(1)
    drawn = [differences(draw, seeds=5, images=1000, spread=0.01, gain=0.05) for _ in range(60)]
    assert sum(crossed_test(d).p_value < 0.05 for d in drawn) > 55
    assert np.mean([crossed_test(d).difference for d in drawn]) == pytest.approx(0.05, abs=0.005)


def test_the_parts_of_the_error_by_loops() -> None:
    d = torch.randn(4, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean = sum(float(d[s, i]) for s in range(4) for i in range(7)) / 28
    seed_means = [float(d[s].mean()) for s in range(4)]
    image_means = [float(d[:, i].mean()) for i in range(7)]
    of_seeds = sum((m - mean) ** 2 for m in seed_means) / 3 / 4
    of_images = sum((m - mean) ** 2 for m in image_means) / 6 / 7
    residual = 0.0
    for s in range(4):
        for i in range(7):
            residual += (float(d[s, i]) - seed_means[s] - image_means[i] + mean) ** 2 / 18
    variance = max(of_seeds + of_images - residual / 28, of_seeds, of_images)
    freedom = variance**2 / (of_seeds**2 / 3 + of_images**2 / 6)
    test = crossed_test(d)
    assert test.difference == pytest.approx(mean)
    assert test.standard_error == pytest.approx(variance**0.5)
    assert test.freedom == pytest.approx(freedom)
    assert test.p_value == pytest.approx(2 * stats.t.sf(abs(mean) / variance**0.5, freedom))


def test_where_images_do_not_differ_it_is_the_t_test_over_seeds() -> None:
    by_seed = torch.tensor([0.02, 0.05, 0.03, 0.01])
    test = crossed_test(by_seed[:, None].expand(4, 50))
    expected = stats.ttest_1samp(by_seed.double().numpy(), 0)
    assert (test.p_value, test.freedom) == pytest.approx((expected.pvalue, 3))
    assert test.interval == pytest.approx(tuple(expected.confidence_interval()))


def test_where_seeds_do_not_differ_it_is_the_t_test_over_images() -> None:
    by_image = torch.randn(60, generator=torch.Generator().manual_seed(1))
    test = crossed_test(by_image.expand(5, 60))
    assert test.p_value == pytest.approx(stats.ttest_1samp(by_image.double().numpy(), 0).pvalue)


def test_no_difference_at_all() -> None:
    test = crossed_test(torch.zeros(5, 10))
    assert (test.difference, test.interval, test.p_value) == (0, (0, 0), 1)
    assert verdict(test) == "equivalent within 3 points"
    assert seeds_needed(test) == 2


def test_one_seed_ranks_nothing() -> None:
    with pytest.raises(UserError, match="at least two seeds and two test images; got 1 and 9"):
        crossed_test(torch.zeros(1, 9))
    with pytest.raises(UserError, match="finite"):
        crossed_test(torch.full((2, 9), torch.nan))


def test_words() -> None:
    draw = np.random.default_rng(2)
    shown = crossed_test(differences(draw, seeds=5, images=2000, spread=0.002, gain=0.1))
    assert verdict(shown) == "shown over 5 seeds"
    assert verdict(shown, 0.2) == "not shown", "a p-value that is adjusted for others counts"
    alike = crossed_test(differences(draw, seeds=10, images=5000, spread=0.002))
    assert verdict(alike) == "equivalent within 3 points"
    unknown = crossed_test(differences(draw, seeds=5, images=100, spread=0.02))
    assert verdict(unknown) == "not shown"
    few = crossed_test(differences(draw, seeds=3, images=2000, spread=0.002, gain=0.1))
    assert verdict(few) == "3 of 5 seeds: no verdict"


def test_the_seeds_that_are_said_to_be_needed_are_enough_and_one_less_is_not() -> None:
    draw = np.random.default_rng(3)
    needed = seeds_needed(
        crossed_test(differences(draw, seeds=40, images=2000, spread=0.02)), power=0.8
    )
    assert needed is not None
    power = {
        seeds: np.mean(
            [
                crossed_test(
                    differences(draw, seeds=seeds, images=2000, spread=0.02, gain=0.03)
                ).p_value
                < 0.05
                for _ in range(150)
            ]
        )
        for seeds in (needed // 2, needed)
    }
    assert power[needed] > 0.7
    assert power[needed // 2] < 0.7
    few_images = crossed_test(differences(draw, seeds=20, images=60, spread=0.01))
    assert seeds_needed(few_images, 0.01) is None


def test_holm_by_hand() -> None:
    """Sorted: 0.01 × 4, 0.02 × 3, 0.03 × 2, 0.5 × 1, none smaller than the one before."""
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
