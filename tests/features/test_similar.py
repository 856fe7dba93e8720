import pytest
import torch
import torch.nn.functional as F

from headwise.errors import UserError
from headwise.features import similar
from headwise.features.similar import similar_pairs


def planted(n: int, p: int, *, mean: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(n, p, generator=generator) + mean
    rows[n // 2 : n // 2 + 20] = rows[:20] * 3 + 0.1 * torch.randn(20, p, generator=generator)
    return rows


@pytest.mark.parametrize("mean", [0.0, 2.0], ids=["few", "many"])
@pytest.mark.parametrize("p", [3, 40])
def test_pairs_are_those_of_the_whole_product(monkeypatch, mean, p):
    monkeypatch.setattr(similar, "_ROWS", 64)
    monkeypatch.setattr(similar, "_COLUMNS", 128)
    rows = planted(300, p, mean=mean)
    unit = F.normalize(rows.double())
    threshold = 0.9
    expected = (unit @ unit.T >= threshold).triu(1).nonzero()
    found, values = similar_pairs(rows, None, threshold)
    assert {*map(tuple, found.T.tolist())} == {*map(tuple, expected.tolist())}
    torch.testing.assert_close(
        values.double(), (unit[found[0]] * unit[found[1]]).sum(1), atol=1e-6, rtol=0
    )
    expected = (unit[:70] @ unit.T >= threshold).nonzero()
    found, _ = similar_pairs(rows[:70], rows, threshold)
    assert {*map(tuple, found.T.tolist())} == {*map(tuple, expected.tolist())}


def test_a_threshold_that_finds_everything_is_refused(monkeypatch):
    monkeypatch.setattr(similar, "_MOST_PAIRS", 100)
    with pytest.raises(UserError, match="more than 100 are at least"):
        similar_pairs(planted(40, 5, mean=2.0), None, 0.0)
