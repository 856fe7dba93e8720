import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise.errors import UserError
from headwise.geometry import alignment, effective_rank, singular_values, uniformity


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_alignment_and_uniformity_equal_plain_loops():
    z0, z1 = noise(9, 5), noise(9, 5, seed=1)
    a, b = ((z / z.norm(dim=1, keepdim=True)).double().numpy() for z in (z0, z1))
    twins = [sum((x - y) ** 2) for x, y in zip(a, b, strict=True)]
    pairs = [math.exp(-2 * sum((a[i] - a[j]) ** 2)) for i in range(9) for j in range(i)]
    assert alignment(z0, z1).item() == pytest.approx(sum(twins) / 9, rel=1e-5)
    assert uniformity(z0).item() == pytest.approx(math.log(sum(pairs) / len(pairs)), rel=1e-5)


def test_alignment_runs_from_equal_to_opposite_twins():
    z = noise(8, 4)
    assert alignment(z, 3 * z).item() == pytest.approx(0, abs=1e-12)
    assert alignment(z, -z).item() == pytest.approx(4, rel=1e-6)


def test_uniformity_of_the_sphere_is_the_known_value():
    """On a sphere of d dimensions x·y has variance 1/d, so E exp(4 x·y − 4) ≈ exp(−4 + 8/d)."""
    assert uniformity(noise(1500, 256)).item() == pytest.approx(-4 + 8 / 256, abs=0.01)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 30), p=st.integers(1, 30), seed=st.integers(0, 99))
def test_spectra_equal_numpys(n, p, seed):
    x = noise(n, p, seed=seed) + 0.5
    values = np.linalg.svd(x.double().numpy(), compute_uv=False)
    shares = values / values.sum()
    expected = math.exp(-(shares * np.log(shares + 1e-300)).sum())
    assert effective_rank(x).item() == pytest.approx(expected, rel=1e-4)
    assert 1 - 1e-5 <= effective_rank(x).item() <= min(n, p) * (1 + 1e-5)
    covariance = np.cov(x.double().numpy(), rowvar=False, bias=True).reshape(p, p)
    expected = np.linalg.eigvalsh(covariance)[::-1]
    np.testing.assert_allclose(singular_values(x).numpy(), expected, rtol=1e-3, atol=1e-5)


def test_planted_ranks_are_found():
    basis = torch.linalg.qr(noise(64, 64)).Q
    assert effective_rank(basis[:7]).item() == pytest.approx(7, rel=1e-4)
    low = noise(100, 3) @ noise(3, 20, seed=1)
    values = singular_values(low)
    assert values[2] > 1
    assert values[3:].max() < 1e-8 * values[0]


@pytest.mark.parametrize("row", [torch.ones(6), torch.zeros(6), 1e-30 * torch.ones(6)])
def test_collapse_is_finite_and_shows(row):
    z = row.expand(10, 6)
    assert alignment(z, z).item() == 0
    assert uniformity(z).item() == 0
    assert effective_rank(z).item() == pytest.approx(1, abs=1e-3)
    assert singular_values(z).max().item() == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("measure", [uniformity, effective_rank, singular_values])
def test_autocast_and_half_precision_stay_float32(measure):
    x = noise(32, 16).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        inside = measure(x.requires_grad_())
    assert inside.dtype == torch.float32
    assert not inside.requires_grad
    torch.testing.assert_close(inside, measure(x.float()), rtol=0, atol=0)
    assert measure(x.double()).dtype == torch.float64


def test_uniformity_and_alignment_ignore_length():
    z, scale = noise(20, 8), 1 + torch.arange(20.0)[:, None]
    torch.testing.assert_close(uniformity(scale * z), uniformity(z))
    torch.testing.assert_close(
        alignment(scale * z, z.flip(0)), alignment(F.normalize(z), z.flip(0))
    )


def test_uniformity_needs_a_pair():
    with pytest.raises(UserError, match="at least 2 rows; got 1"):
        uniformity(noise(1, 8))
