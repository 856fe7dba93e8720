"""NT-Xent against the paper's algorithm as loops, and against two other implementations."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.loss import NTXentLoss
from pytorch_metric_learning.losses import NTXentLoss as PMLNTXent
from pytorch_metric_learning.losses import SelfSupervisedLoss

from headwise.losses import contrastive_accuracy, contrastive_logits, nt_xent

CASES = [(2, 3, 0.5), (7, 1, 1.0), (16, 5, 0.1), (33, 128, 0.5), (64, 16, 0.2), (64, 512, 0.07)]


def views(n: int, d: int, seed: int = 0, *, noise: float = 1.0) -> list[torch.Tensor]:
    """Two views whose twins resemble each other, of very unlike norms."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(n, d, generator=generator)
    norms = torch.logspace(-1, 1, n)[:, None]
    return [norms * (shared + noise * torch.randn(n, d, generator=generator)) for _ in "01"]


def algorithm_1(z0: np.ndarray, z1: np.ndarray, temperature: float) -> float:
    """SimCLR, Algorithm 1, line by line: z_{2k−1} and z_{2k} are the two views of image k."""
    n = len(z0)
    z = {}
    for k in range(1, n + 1):
        z[2 * k - 1], z[2 * k] = z0[k - 1].astype(np.float64), z1[k - 1].astype(np.float64)
    s = {}
    for i in range(1, 2 * n + 1):
        for j in range(1, 2 * n + 1):
            s[i, j] = z[i] @ z[j] / (np.sqrt(z[i] @ z[i]) * np.sqrt(z[j] @ z[j]))

    def ell(i: int, j: int) -> float:
        below = sum(math.exp(s[i, k] / temperature) for k in range(1, 2 * n + 1) if k != i)
        return -math.log(math.exp(s[i, j] / temperature) / below)

    pairs = (ell(2 * k - 1, 2 * k) + ell(2 * k, 2 * k - 1) for k in range(1, n + 1))
    return sum(pairs) / (2 * n)


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(1, 9),
    d=st.integers(1, 6),
    temperature=st.floats(0.01, 10),
    seed=st.integers(0, 10_000),
)
def test_nt_xent_is_algorithm_1(n, d, temperature, seed):
    z0, z1 = (z.double() for z in views(n, d, seed))
    expected = algorithm_1(z0.numpy(), z1.numpy(), temperature)
    assert nt_xent(z0, z1, temperature).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def value_and_gradient(loss, z0, z1):
    leaves = [z.clone().requires_grad_() for z in (z0, z1)]
    value = loss(*leaves)
    value.backward()
    return value.detach(), torch.cat([leaf.grad for leaf in leaves])


@pytest.mark.parametrize("oracle", [NTXentLoss, PMLNTXent], ids=["lightly", "pml"])
@pytest.mark.parametrize(("n", "d", "temperature"), CASES)
def test_loss_and_gradient_are_those_of_other_implementations(oracle, n, d, temperature):
    z0, z1 = views(n, d)
    other = oracle(temperature=temperature)
    other = SelfSupervisedLoss(other) if oracle is PMLNTXent else other
    value, gradient = value_and_gradient(other, z0, z1)
    ours, our_gradient = value_and_gradient(lambda a, b: nt_xent(a, b, temperature), z0, z1)
    torch.testing.assert_close(ours, value, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(our_gradient, gradient, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("temperature", [0.5, 0.02, 0.005])
@pytest.mark.parametrize("n", [2, 5, 128])
def test_all_rows_equal_give_log_2n_minus_1(n, temperature):
    z = torch.randn(8, generator=torch.Generator().manual_seed(0)).expand(n, 8)
    assert nt_xent(z, z, temperature).item() == pytest.approx(math.log(2 * n - 1), abs=1e-4)


@pytest.mark.parametrize("temperature", [0.02, 0.005])
@pytest.mark.parametrize("kind", ["collapsed", "nearly-collapsed", "independent", "alike"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_low_temperature_is_right_in_any_precision(dtype, kind, temperature):
    n = 64
    match kind:
        case "collapsed":
            z0 = z1 = torch.ones(n, 32)
        case "nearly-collapsed":
            z0, z1 = (1 + 0.02 * z / z.abs().max() for z in views(n, 32))
        case "independent":
            z0, z1 = views(n, 32)[0], views(n, 32, seed=1)[0]
        case "alike":
            z0, z1 = views(n, 32, noise=0.05)
    z0, z1 = z0.to(dtype), z1.to(dtype)
    exact, exact_gradient = value_and_gradient(
        lambda a, b: nt_xent(a, b, temperature), z0.double(), z1.double()
    )

    def under_autocast(a, b):
        with torch.autocast("cpu", torch.bfloat16):
            return nt_xent(a, b, temperature)

    loss, gradient = value_and_gradient(under_autocast, z0.float(), z1.float())
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-4, abs=1e-4)
    scale = exact_gradient.abs().max().item()
    torch.testing.assert_close(gradient.double(), exact_gradient, rtol=0, atol=1e-3 * scale + 1e-4)
    # Half-precision input is cast up before anything else.
    assert torch.equal(nt_xent(z0, z1, temperature), loss)
    assert value_and_gradient(under_autocast, z0, z1)[1].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_zero_rows_are_finite(dtype):
    z0, z1 = (z.to(dtype) for z in views(6, 4))
    z0[2] = 0
    z1[2:4] = 0
    value, gradient = value_and_gradient(lambda a, b: nt_xent(a, b, 0.1), z0, z1)
    assert value.isfinite()
    # The gradient of a zero row is unbounded; what matters is that it poisons no other row.
    others = torch.ones(12, dtype=torch.bool)
    others[[2, 8, 9]] = False
    assert gradient[others].isfinite().all()
    assert not gradient.isnan().any()


@settings(deadline=None, max_examples=30)
@given(n=st.integers(2, 20), seed=st.integers(0, 999), temperature=st.floats(0.02, 2))
def test_neither_views_nor_images_nor_norms_have_an_order(n, seed, temperature):
    z0, z1 = (z.double() for z in views(n, 4, seed))
    expected = pytest.approx(nt_xent(z0, z1, temperature).item(), rel=1e-10)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert nt_xent(z1, z0, temperature).item() == expected
    assert nt_xent(z0[order], z1[order], temperature).item() == expected
    assert nt_xent(7 * z0, z1 * torch.logspace(-2, 2, n)[:, None], temperature).item() == expected


def test_logits_are_cosines_over_the_temperature_without_oneself():
    z0, z1 = (z.double() for z in views(5, 3))
    logits, positives = contrastive_logits(z0, z1, 0.2)
    z = torch.cat([z0, z1])
    cosines = torch.cosine_similarity(z[:, None], z[None], dim=-1)
    off = ~torch.eye(10, dtype=torch.bool)
    torch.testing.assert_close(logits[off], cosines[off] / 0.2, rtol=1e-12, atol=1e-12)
    assert (logits.diagonal() == -math.inf).all()
    assert positives.tolist() == [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]


def accuracy(z0: torch.Tensor, z1: torch.Tensor) -> float:
    return contrastive_accuracy(*contrastive_logits(z0, z1, 0.1)).item()


def test_contrastive_accuracy_of_perfect_and_of_half_right_projections():
    z = torch.eye(8)
    assert accuracy(z, z) == 1
    noisy = z + 0.1 * torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    assert accuracy(z, noisy) == 1
    swapped = z.clone()
    swapped[[0, 1]] = z[[1, 0]]  # four of sixteen anchors are nearest to another's twin
    assert accuracy(z, swapped) == pytest.approx(12 / 16)


def test_contrastive_accuracy_of_independent_projections_is_chance():
    generator = torch.Generator().manual_seed(0)
    n, trials = 32, 60
    hits = [
        accuracy(*(torch.randn(n, 16, generator=generator) for _ in "01")) for _ in range(trials)
    ]
    chance = 1 / (2 * n - 1)
    error = math.sqrt(chance * (1 - chance) / (trials * n))  # twins' hits go together
    assert abs(sum(hits) / trials - chance) < 4 * error


def test_ties_count_as_wrong():
    assert accuracy(torch.ones(6, 4), torch.ones(6, 4)) == 0
    z = torch.eye(4)
    z[1] = z[0]  # images 0 and 1 are one and the same
    assert accuracy(z, z) == pytest.approx(4 / 8)
