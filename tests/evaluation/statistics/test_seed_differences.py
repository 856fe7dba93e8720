"""What a page says of several systems over seeds: one test, one interval, no contradiction."""

from itertools import combinations

import numpy as np
import pytest
import torch
from planted_seeds import answers_with
from planted_seeds import differences as planted

from headwise.evaluation.statistics.crossed import crossed_test, holm, holm_shares
from headwise.evaluation.statistics.over_seeds import (
    differences,
    half_width,
    half_width_of_means,
)


def test_a_verdict_and_its_interval_never_disagree() -> None:
    """Neither where p-values are adjusted: "not shown" never stands beside an interval without 0,
    "shown" never beside one with 0, "equivalent" never beside one that leaves the margin."""
    draw = np.random.default_rng(0)
    verdicts = set()
    for _ in range(60):
        gains = draw.choice([0.0, 0.02, 0.05], 4)
        some = {"seeds": 5, "images": 2000, "spread": 0.004}
        rows = {f"head{i}": planted(draw, gain=gain, **some) for i, gain in enumerate(gains)}
        for one in differences("linear/h", rows, list(combinations(rows, 2))):
            assert one.interval is not None
            assert one.p_value is not None
            low, high = one.interval
            assert low <= one.value <= high
            assert one.shown == (low > 0 or high < 0) == (one.p_value < 0.05)
            assert one.verdict.startswith("equivalent") <= (low > -0.03 and high < 0.03)
            verdicts.add(one.verdict)
    assert verdicts == {"shown over 5 seeds", "equivalent within 3 points", "not shown"}


def test_some_equal_head_is_told_apart_in_one_comparison_of_twenty() -> None:
    """Five equal heads, ten pairs: the error is that of the whole comparison."""
    draw = np.random.default_rng(1)
    wrong = 0
    for _ in range(120):
        rows = {f"head{i}": planted(draw, seeds=5, images=300, spread=0.02) for i in range(5)}
        found = differences("linear/h", rows, list(combinations(rows, 2)))
        wrong += any(one.shown for one in found)
    assert wrong / 120 <= 0.05 + 3 * (0.05 * 0.95 / 120) ** 0.5


def test_shares_of_the_level_by_hand() -> None:
    """0.001 < 0.05 / 4, 0.02 ≥ 0.05 / 3: the others have that share too."""
    assert holm_shares([0.03, 0.001, 0.5, 0.02]) == pytest.approx(
        [0.05 / 3, 0.05 / 4, 0.05 / 3, 0.05 / 3]
    )
    draw = np.random.default_rng(2)
    for _ in range(200):
        p_values = (draw.random(6) ** 4).tolist()
        significant = [p < share for p, share in zip(p_values, holm_shares(p_values), strict=True)]
        assert significant == [p < 0.05 for p in holm(p_values)]


def test_few_seeds_have_no_verdict() -> None:
    pairs = [("a", "b")]
    for seeds, words in ((1, ""), (2, "2 of 5 seeds: no verdict"), (4, "4 of 5 seeds: no verdict")):
        rows = {"a": answers_with(0.7, seeds), "b": answers_with(0.6, seeds)}
        (one,) = differences("linear/h", rows, pairs)
        assert one.verdict == words
        assert one.p_value is None
        assert (one.interval is None) == (seeds < 3), "that of two seeds would say nothing"
        assert len(one.within) == seeds
        assert all(low < one.value < high for low, high in one.within)


def test_half_widths() -> None:
    rows = answers_with(0.7, 5)
    low, high = crossed_test(rows).interval
    assert half_width(rows) == pytest.approx((high - low) / 2)
    assert half_width(rows[:3]) is None
    one = half_width(rows[:1])
    assert one == pytest.approx(1.96 * (0.7 * 0.3 / 2000) ** 0.5, rel=0.01)
    assert half_width_of_means([1.0, 2.0, 3.0]) is None
    five = torch.arange(5.0).tolist()
    assert half_width_of_means(five) == pytest.approx(2.776 * (2.5 / 5) ** 0.5, rel=1e-3)
