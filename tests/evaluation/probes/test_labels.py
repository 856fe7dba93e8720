"""What labels say before anything is measured: when an accuracy misleads."""

import pytest
import torch

from headwise.evaluation.probes.labels import unbalanced


@pytest.mark.parametrize(
    ("counts", "found"),
    [([50, 50], False), ([74, 26], False), ([75, 25], True), ([14, 10, 6], False), ([3], False)],
)
def test_unbalanced_from_one_and_a_half_times_the_even_share(counts: list[int], found: bool):
    truth = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    assert unbalanced(truth) is found
