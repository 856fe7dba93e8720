"""NT-Xent against the paper's algorithm as loops, and against two other implementations."""

import inspect
import math
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.loss import NTXentLoss
from pytorch_metric_learning.losses import NTXentLoss as PMLNTXent
from pytorch_metric_learning.losses import SelfSupervisedLoss
from torch.nn.functional import cross_entropy, normalize
from torch.utils._python_dispatch import TorchDispatchMode

from headwise.errors import UserError
from headwise.losses import (
    Method,
    affinity_loss,
    contrastive_accuracy,
    contrastive_logits,
    direction_regression,
    nt_xent,
    nt_xent_and_accuracy,
    tiled,
)

METHODS: tuple[Method, ...] = ("dense", "tiled")
CASES = [(2, 3, 0.5), (7, 1, 1.0), (16, 5, 0.1), (33, 128, 0.5), (64, 16, 0.2), (64, 512, 0.07)]


def views(
    n: int, d: int, seed: int = 0, *, noise: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two views whose twins resemble each other, of very unlike norms."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(n, d, generator=generator)
    norms = torch.logspace(-1, 1, n)[:, None]
    first, second = (noise * torch.randn(n, d, generator=generator) for _ in "01")
    return norms * (shared + first), norms * (shared + second)


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
    expected = pytest.approx(algorithm_1(z0.numpy(), z1.numpy(), temperature), rel=1e-9, abs=1e-9)
    for method in METHODS:
        assert nt_xent(z0, z1, temperature, method).item() == expected


def value_and_gradient(loss, z0, z1):
    leaves = [z.clone().requires_grad_() for z in (z0, z1)]
    value = loss(*leaves)
    value.backward()
    return value.detach(), torch.cat([leaf.grad for leaf in leaves])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("oracle", [NTXentLoss, PMLNTXent], ids=["lightly", "pml"])
@pytest.mark.parametrize(("n", "d", "temperature"), CASES)
def test_loss_and_gradient_are_those_of_other_implementations(oracle, n, d, temperature, method):
    z0, z1 = views(n, d)
    other = oracle(temperature=temperature)
    other = SelfSupervisedLoss(other) if oracle is PMLNTXent else other
    value, gradient = value_and_gradient(other, z0, z1)
    ours, our_gradient = value_and_gradient(lambda a, b: nt_xent(a, b, temperature, method), z0, z1)
    torch.testing.assert_close(ours, value, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(our_gradient, gradient, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("temperature", [0.5, 0.02, 0.005])
@pytest.mark.parametrize("n", [2, 5, 128])
def test_all_rows_equal_give_log_2n_minus_1(n, temperature, method):
    z = torch.randn(8, generator=torch.Generator().manual_seed(0)).expand(n, 8)
    assert nt_xent(z, z, temperature, method).item() == pytest.approx(math.log(2 * n - 1), abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("temperature", [0.02, 0.005])
@pytest.mark.parametrize("kind", ["collapsed", "nearly-collapsed", "independent", "alike"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_low_temperature_is_right_in_any_precision(dtype, kind, temperature, method):
    n = 64
    match kind:
        case "collapsed":
            z0 = z1 = torch.ones(n, 32)
        case "nearly-collapsed":
            z0, z1 = (1 + 0.02 * z / z.abs().max() for z in views(n, 32))
        case "independent":
            z0, z1 = views(n, 32)[0], views(n, 32, seed=1)[0]
        case _:
            assert kind == "alike"
            z0, z1 = views(n, 32, noise=0.05)
    z0, z1 = z0.to(dtype), z1.to(dtype)
    exact, exact_gradient = value_and_gradient(
        lambda a, b: nt_xent(a, b, temperature, "dense"), z0.double(), z1.double()
    )

    def under_autocast(a, b):
        with torch.autocast("cpu", torch.bfloat16):
            return nt_xent(a, b, temperature, method)

    loss, gradient = value_and_gradient(under_autocast, z0.float(), z1.float())
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-4, abs=1e-4)
    scale = exact_gradient.abs().max().item()
    torch.testing.assert_close(gradient.double(), exact_gradient, rtol=0, atol=1e-3 * scale + 1e-4)
    # Half-precision input is cast up before anything else.
    assert torch.equal(nt_xent(z0, z1, temperature, method), loss)
    assert value_and_gradient(under_autocast, z0, z1)[1].isfinite().all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_zero_rows_are_finite(dtype, method):
    z0, z1 = (z.to(dtype) for z in views(6, 4))
    z0[2] = 0
    z1[2:4] = 0
    value, gradient = value_and_gradient(lambda a, b: nt_xent(a, b, 0.1, method), z0, z1)
    assert value.isfinite()
    # The gradient of a zero row is unbounded; what matters is that it poisons no other row.
    others = torch.ones(12, dtype=torch.bool)
    others[[2, 8, 9]] = False
    assert gradient[others].isfinite().all()
    assert not gradient.isnan().any()


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(2, 20),
    rows=st.integers(1, 41),
    temperature=st.sampled_from([0.02, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 999),
)
def test_tiles_of_any_height_are_the_whole_matrix(n, rows, temperature, seed):
    z0, z1 = (z.double() for z in views(n, 5, seed))
    z1[0], z0[n // 2] = z0[0], z0[1]  # a solved pair, and a false negative as near as can be
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiled, "_ROWS", rows)
        found, gradient = value_and_gradient(
            lambda a, b: nt_xent(a, b, temperature, "tiled"), z0, z1
        )
        accuracy = nt_xent_and_accuracy(z0, z1, temperature, "tiled").accuracy
    exact, exact_gradient = value_and_gradient(
        lambda a, b: nt_xent(a, b, temperature, "dense"), z0, z1
    )
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, exact_gradient, rtol=1e-9, atol=1e-12)
    assert accuracy == contrastive_accuracy(*contrastive_logits(z0, z1, temperature))


@pytest.mark.parametrize("groups", [1, 2, 7, 40])
@pytest.mark.parametrize("method", ["dense", "tiled", "fused"])
def test_mates_are_no_negatives(method, groups):
    """Against the definition, anchor by anchor; also where an anchor has no negative left."""
    z0, z1 = (z.double().requires_grad_() for z in views(20, 6))
    mates = torch.arange(20) * 7919 % groups - 2
    z = normalize(torch.cat([z0, z1]), dim=1)
    terms, right = [], []
    for i in range(40):
        kept = [j for j in range(40) if j % 20 != i % 20 and mates[j % 20] != mates[i % 20]]
        twin = (i + 20) % 40
        logits = (z[[twin, *kept]] @ z[i]) / 0.1
        terms.append(logits.logsumexp(0) - logits[0])
        right.append(not kept or bool(logits[0] > logits[1:].max()))
    exact = torch.stack(terms).mean()
    loss, accuracy = nt_xent_and_accuracy(z0, z1, 0.1, method, mates=mates)
    torch.testing.assert_close(loss, exact, rtol=1e-12, atol=1e-12)
    assert accuracy.item() == pytest.approx(sum(right) / 40)
    found, expected = (torch.autograd.grad(x, (z0, z1), retain_graph=True) for x in (loss, exact))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.1, 0.02])
@pytest.mark.parametrize("noise", [0.3, 1.0, 100.0])
def test_tiles_in_float32_are_exact(noise, temperature):
    z0, z1 = views(600, 128, noise=noise)

    def loss(a, b):
        return nt_xent(a, b, temperature, "tiled")

    found, gradient = value_and_gradient(loss, z0, z1)
    exact, exact_gradient = value_and_gradient(loss, z0.double(), z1.double())
    assert found.item() == pytest.approx(exact.item(), rel=1e-5)
    error = (gradient - exact_gradient).norm() / exact_gradient.norm()
    assert error < 1e-5


class Largest(TorchDispatchMode):
    """The elements of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


def test_memory_of_tiles_is_linear_in_n():
    largest = {}
    for method in METHODS:
        for n in (600, 1200):
            with Largest() as mode:
                value_and_gradient(lambda a, b: nt_xent(a, b, 0.5, method), *views(n, 8))  # noqa: B023
            largest[method, n] = mode.elements
    assert largest["dense", 1200] == 4 * largest["dense", 600] == 2400**2
    assert largest["tiled", 1200] == 2 * largest["tiled", 600] == tiled._ROWS * 2400


def test_small_batches_are_dense_to_the_bit_and_large_ones_are_not_dense():
    z0, z1 = views(64, 16)
    logits, positives = contrastive_logits(z0, z1, 0.5)
    assert torch.equal(nt_xent(z0, z1, 0.5), cross_entropy(logits, positives))
    with Largest() as mode:
        nt_xent(*views(1200, 8), 0.5)
    assert mode.elements < 2400**2


def test_tiles_are_differentiable_once():
    z0, z1 = (z.requires_grad_() for z in views(4, 3))
    with pytest.raises(UserError, match="dense"):
        torch.autograd.grad(nt_xent(z0, z1, 0.5, "tiled"), z0, create_graph=True)


@pytest.mark.parametrize("n", [256, 257, 600])
@pytest.mark.parametrize("method", ["auto", "tiled", "fused"])
def test_a_learnable_temperature_learns_in_every_form(n, method):
    z0, z1 = views(n, 16)

    def slopes(z0, z1, method):
        a, b, t = (z.clone().requires_grad_() for z in (z0, z1, torch.tensor(0.2).to(z0)))
        found = torch.autograd.grad(3 * nt_xent(a, b, t, method), (a, b, t))
        return [slope.double() for slope in found]

    exact, found = slopes(z0.double(), z1.double(), "dense"), slopes(z0, z1, method)
    assert exact[2].abs() > 0.1
    for a, b in zip(exact, found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-6)
    # The temperature alone may learn.
    alone = torch.tensor(0.2, requires_grad=True)
    (slope,) = torch.autograd.grad(nt_xent(z0, z1, alone, method), alone)
    assert 3 * slope.item() == pytest.approx(exact[2].item(), rel=1e-5)


def test_a_temperature_is_one_number():
    unchecked = inspect.unwrap(nt_xent_and_accuracy)  # as users have it, without the tests' types
    for n in (4, 300):
        with pytest.raises(UserError, match="must be one number"):
            unchecked(*views(n, 3), torch.full((2 * n, 1), 0.5))


def test_fused_is_tiled_where_there_is_no_gpu():
    z0, z1 = views(40, 16)
    assert torch.equal(nt_xent(z0, z1, 0.5, "fused"), nt_xent(z0, z1, 0.5, "tiled"))


def test_fused_kernels_in_an_interpreter():
    """On the CPU, in a process of its own: Triton decides at its import whether it interprets."""
    pytest.importorskip("triton")
    script = Path(__file__).with_name("fused_in_an_interpreter.py")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr


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
    """Of every method, which must agree."""
    (value,) = {nt_xent_and_accuracy(z0, z1, 0.1, method).accuracy.item() for method in METHODS}
    assert value == contrastive_accuracy(*contrastive_logits(z0, z1, 0.1)).item()
    return value


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


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("n", [8, 300])
def test_a_temperature_that_is_not_positive_is_one_line(n, temperature):
    z = torch.randn(n, 4)
    for loss in (nt_xent, contrastive_logits):
        with pytest.raises(UserError, match="temperature must be positive and finite; got"):
            loss(z, z, temperature)


def test_tables_that_do_not_fit_are_one_line(unchecked):
    z, labels = torch.randn(8, 4), torch.zeros(8, dtype=torch.int64)
    for loss in (nt_xent, affinity_loss, partial(contrastive_logits, temperature=1.0)):
        for other in (z[:7], z[:, :3], z[0]):
            with pytest.raises(UserError, match="two views must be tables of one shape"):
                loss(z, other)
        with pytest.raises(UserError, match="a row for every image"):
            loss(z[:0], z[:0])
    with pytest.raises(UserError, match="a label for each of the 8 images"):
        affinity_loss(z, z, labels[:7])
    for rows, directions in ((labels[:7], z[:2]), (labels, z[:2, :3])):
        with pytest.raises(UserError, match="a label for every row of z"):
            direction_regression(z, rows, directions)
