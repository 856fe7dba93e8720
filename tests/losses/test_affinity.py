"""The affinity loss against SciPy, its bounds, and who is left out of a row."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from narrow import gradient_of
from scipy.spatial.distance import jensenshannon

from headwise.losses import affinity, affinity_loss, js_divergence, target_affinity


def draw(n: int, d: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in "01"]


def distributions(m: int, k: int, seed: int, zeros: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(m, k, generator=generator, dtype=torch.float64)
    p *= torch.rand(m, k, generator=generator) >= zeros
    p[:, 0] += 1e-3
    return p / p.sum(1, keepdim=True)


@settings(deadline=None, max_examples=60)
@given(
    m=st.integers(1, 6),
    k=st.integers(1, 8),
    seed=st.integers(0, 999),
    zeros=st.sampled_from([0.0, 0.6, 1.0]),
)
def test_divergence_is_scipys_symmetric_and_within_its_bounds(m, k, seed, zeros):
    p, q = distributions(m, k, seed, zeros), distributions(m, k, seed + 1, zeros)
    found = js_divergence(p, q).item()
    with np.errstate(invalid="ignore"):  # SciPy takes the root of rounding below zero
        pairs = zip(p.numpy(), q.numpy(), strict=True)
        expected = np.mean([np.nan_to_num(jensenshannon(*pair)) ** 2 for pair in pairs])
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-14)
    assert js_divergence(q, p).item() == pytest.approx(found, rel=1e-12, abs=1e-15)
    assert -1e-15 <= found <= math.log(2) + 1e-15
    assert js_divergence(p, p).item() == 0


def test_divergence_of_distributions_without_overlap_is_log_2():
    p = torch.tensor([[0.25, 0.75, 0, 0], [1, 0, 0, 0]])
    q = torch.tensor([[0, 0, 0.5, 0.5], [0, 1, 0, 0]])
    assert js_divergence(p, q).item() == pytest.approx(math.log(2), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_is_finite_at_zeros(dtype):
    p = torch.tensor([[0, 1, 0], [0.5, 0.5, 0]], dtype=dtype, requires_grad=True)
    q = torch.tensor([[1, 0, 0], [0, 0.5, 0.5]], dtype=dtype, requires_grad=True)
    js_divergence(p, q).backward()
    assert gradient_of(p).isfinite().all()
    assert gradient_of(q).isfinite().all()
    assert gradient_of(p)[0, 0] < 0  # more where the other has mass: nearer


def looped_affinity(z: np.ndarray, temperature: float) -> np.ndarray:
    """From the definition, temperature and all."""
    m = len(z)
    s = np.zeros((m, m))
    for i in range(m):
        for j in range(m):
            if i != j:
                cosine = z[i] @ z[j] / math.sqrt((z[i] @ z[i]) * (z[j] @ z[j]))
                s[i, j] = (cosine / temperature) ** 2
    return s / s.sum(1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 0.07])
def test_affinity_is_the_papers_at_any_temperature(temperature):
    z0, z1 = draw(5, 3)
    expected = looped_affinity(torch.cat([z0, z1]).numpy(), temperature)
    np.testing.assert_allclose(affinity(z0, z1).numpy(), expected, rtol=1e-12)


def assert_twin_counts_and_self_does_not(measure, half: int) -> None:
    """For the rows of one half (0: first views): images are at cosine 1/2 to each other, twins
    collinear, then orthogonal. Both are needed: reading self as the twin looks right in the first,
    leaving the twin out looks right in the second."""
    n = 3
    own, common = torch.eye(n + 1)[1:], torch.eye(n + 1)[:1]
    rows = torch.arange(n) + half * n
    twins = (rows + n) % (2 * n)
    for z1, of_twin in ((common + own, 1.0), (common - own, 0.0)):
        found = measure(common + own, z1)[rows]
        others = torch.full((n, 2 * n), 0.25)
        others[torch.arange(n), twins] = of_twin
        others[torch.arange(n), rows] = 0
        torch.testing.assert_close(found, others / others.sum(1, keepdim=True))


def test_self_and_not_the_twin_is_left_out():
    for half in (0, 1):
        assert_twin_counts_and_self_does_not(affinity, half)


def with_own_view_first(z0: torch.Tensor, z1: torch.Tensor, *, put_back: bool) -> torch.Tensor:
    """The mistake of a reference implementation: the columns of second views start with second
    views, and the diagonal, struck out as self, is the twin there. Self stays, as good as a
    perfect twin. `put_back`: columns in the common order again, after striking."""
    z = torch.nn.functional.normalize(torch.cat([z0, z1]), dim=1)
    n = len(z0)
    squared = torch.cat([z[:n] @ z.T, z[n:] @ torch.cat([z[n:], z[:n]]).T]).square()
    squared.fill_diagonal_(0)
    if put_back:
        squared[n:] = squared[n:].roll(n, 1)
    return squared / squared.sum(1, keepdim=True)


@pytest.mark.parametrize("put_back", [False, True])
def test_columns_in_another_order_for_second_views_would_be_noticed(put_back):
    def wrong(z0, z1):
        return with_own_view_first(z0, z1, put_back=put_back)

    assert_twin_counts_and_self_does_not(wrong, 0)  # right for first views
    with pytest.raises(AssertionError):
        assert_twin_counts_and_self_does_not(wrong, 1)


def test_affinity_ignores_norms_and_signs_and_is_finite_where_a_row_is_zero():
    z0, z1 = draw(4, 5)
    expected = affinity(z0, z1)
    torch.testing.assert_close(affinity(-3 * z0, z1), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(expected.sum(1), torch.ones(8, dtype=torch.float64))
    z0, z1 = z0.float().requires_grad_(), z1.float()
    lone = torch.cat([z0[:3], torch.zeros(1, 5)])
    found = affinity(lone, z1)
    assert (found[3] == 0).all()
    affinity_loss(lone, z1).backward()
    assert gradient_of(z0).isfinite().all()


def test_affinity_is_in_float32_under_autocast():
    z0, z1 = (z.bfloat16() for z in draw(6, 8))
    with torch.autocast("cpu", torch.bfloat16):
        found = affinity(z0, z1)
    assert torch.equal(found, affinity(z0.float(), z1.float()))


def test_target_is_the_twin():
    rows = torch.arange(6)
    expected = torch.zeros(6, 6)
    expected[rows, (rows + 3) % 6] = 1
    assert torch.equal(target_affinity(3, torch.device("cpu"), torch.float32), expected)


def test_target_with_labels_is_the_class_without_oneself():
    labels = torch.tensor([1, -1, 1, 0, -1])
    found = target_affinity(5, torch.device("cpu"), torch.float64, labels)
    both = labels.repeat(2).tolist()
    for i in range(10):
        alike = [
            j
            for j in range(10)
            if j != i and ((both[j] == both[i] >= 0) or j % 5 == i % 5)  # −1: the twin alone
        ]
        expected = [1 / len(alike) if j in alike else 0 for j in range(10)]
        assert found[i].tolist() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("labels", [None, torch.tensor([0, 1, 0, -1])])
def test_gradient(labels):
    z0, z1 = (z.requires_grad_() for z in draw(4, 3))
    assert torch.autograd.gradcheck(lambda a, b: affinity_loss(a, b, labels), (z0, z1))


def test_no_gradient_at_rank_one():
    scales, line = draw(4, 1), draw(1, 5)[0]
    z0, z1 = ((scale * line).requires_grad_() for scale in scales)
    affinity_loss(z0, z1).backward()
    assert max(gradient_of(z).abs().max() for z in (z0, z1)) < 1e-10


@pytest.mark.parametrize("labels", [None, torch.tensor([0, 1, 0, 1])])
def test_descent_of_free_projections_reaches_the_target(labels):
    z0, z1 = (z.requires_grad_() for z in draw(4, 6))
    before = affinity_loss(z0, z1, labels).item()
    optimizer = torch.optim.Adam([z0, z1], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        loss = affinity_loss(z0, z1, labels)
        loss.backward()
        optimizer.step()
    target = target_affinity(4, z0.device, z0.dtype, labels)
    assert before > 0.1
    assert loss < 1e-3
    torch.testing.assert_close(affinity(z0, z1), target, rtol=0, atol=0.01)
