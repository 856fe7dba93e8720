"""Where NT-Xent has no gradient, how it curves there, and how long descent takes to leave."""

import csv
import io
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from narrow import gradient_of, present

from headwise.losses import nt_xent
from headwise.report.plots.drawing import style
from headwise.theory.overfusion import (
    descend,
    gradient,
    measured_spectrum,
    overfusion_demo,
    pole_levels,
    predicted_growth,
    rank_one_spectrum,
    stuck,
)
from headwise.theory.overfusion_figures import curvature_figure, escape_figure


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def direction(d: int, seed: int = 0) -> torch.Tensor:
    v = normal(d, seed=seed)
    return v / v.norm()


def poles(plus: int, minus: int) -> torch.Tensor:
    return torch.tensor([1.0] * plus + [-1.0] * minus, dtype=torch.float64).repeat(2)


@settings(deadline=None, max_examples=50)
@given(
    n=st.integers(1, 12),
    d=st.integers(1, 8),
    seed=st.integers(0, 999),
    temperature=st.floats(0.05, 2),
    method=st.sampled_from(["dense", "tiled"]),
)
def test_no_gradient_at_rank_one(n, d, seed, temperature, method):
    """All rows equal, all on a line through the origin at either side, and at any length."""
    v, scales = direction(d, seed), normal(2 * n, 1, seed=seed + 1)
    scales = scales.sign() * scales.abs().clamp(min=0.1)
    for factors in (torch.ones_like(scales), scales.sign(), scales):
        z = (factors * v).requires_grad_()
        z0, z1 = z.chunk(2)
        nt_xent(z0, z1, temperature, method).backward()
        assert gradient_of(z).abs().max() < 1e-10


@settings(deadline=None, max_examples=30)
@given(n=st.integers(3, 8), rank=st.integers(2, 4), seed=st.integers(0, 99))
def test_gradient_stays_in_the_span_of_the_rows(n, rank, seed):
    basis = torch.linalg.qr(normal(7, rank, seed=seed)).Q.T
    found = gradient(normal(2 * n, rank, seed=seed + 1) @ basis, 0.5)
    assert (found - found @ basis.T @ basis).abs().max() < 1e-12
    assert found.abs().max() > 1e-4  # from rank two on there is one


def test_all_rows_equal_is_a_saddle_of_known_curvature():
    n, d, temperature = 4, 3, 0.2
    m = 2 * n
    expected = [
        *[-2 / ((m - 1) * temperature)] * ((n - 1) * (d - 1)),
        *[0.0] * (d - 1),
        *[2 * (m - 2) / (m * (m - 1) * temperature)] * (n * (d - 1)),
    ]
    found = measured_spectrum(poles(n, 0), direction(d), temperature)
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-8
    )


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize(
    ("plus", "minus", "d"), [(1, 0, 3), (3, 0, 4), (1, 1, 3), (2, 1, 3), (1, 3, 2), (2, 2, 3)]
)
def test_curvature_at_two_poles_is_the_closed_form(plus, minus, d, temperature):
    levels = pole_levels(plus, minus, d, temperature)
    expected = sorted(level.eigenvalue for level in levels for _ in range(level.directions))
    expected = torch.tensor(expected, dtype=torch.float64)
    signs = poles(plus, minus)
    measured = measured_spectrum(signs, direction(d), temperature)
    torch.testing.assert_close(measured, expected, rtol=0, atol=1e-8)
    by_laplacian = rank_one_spectrum(signs, temperature).repeat_interleave(d - 1)
    torch.testing.assert_close(by_laplacian, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("signs", [(1, 1, 1, -1), (1, 1, -1, 1, 1, -1), (1, -1, 1, -1, 1, 1)])
def test_curvature_with_twins_at_unlike_poles(signs):
    signs = torch.tensor(signs, dtype=torch.float64)
    expected = rank_one_spectrum(signs, 0.5).repeat_interleave(2)
    found = measured_spectrum(signs, direction(3), 0.5)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


def test_curvature_of_projections_of_another_length():
    """With respect to the projections themselves: nothing along them, 1/length² across."""
    n, d, length = 2, 3, 3.0

    def loss(z):
        return nt_xent(z[:n], z[n:], 0.5, "dense")

    hessian = torch.autograd.functional.hessian(loss, (length * direction(d)).repeat(2 * n, 1))
    found = torch.linalg.eigvalsh(hessian.reshape(2 * n * d, 2 * n * d))
    across = rank_one_spectrum(poles(n, 0), 0.5).repeat_interleave(d - 1) / length**2
    expected = torch.cat([across, torch.zeros(2 * n, dtype=torch.float64)]).sort().values
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 5.0])
def test_every_rank_one_point_is_a_saddle_but_two_images_at_two_poles(temperature):
    for n in (2, 3, 4):
        for signs in itertools.product([1.0, -1.0], repeat=2 * n - 1):
            signs = torch.tensor([1.0, *signs])
            least = rank_one_spectrum(signs, temperature)[0].item()
            solved = n == 2 and torch.equal(signs, torch.tensor([1.0, -1, 1, -1]))
            assert solved == (least > -1e-9), signs
    z = poles(1, 1)[:, None] * direction(4)
    moved = [(z + 0.3 * normal(4, 4, seed=seed)).chunk(2) for seed in range(50)]
    least = min(nt_xent(z0, z1, temperature).item() for z0, z1 in moved)
    z0, z1 = z.chunk(2)
    assert nt_xent(z0, z1, temperature).item() <= least  # that one is the minimum


@pytest.mark.parametrize(
    ("n", "d", "temperature", "rate"), [(16, 8, 0.5, 1.0), (4, 3, 0.1, 0.05), (32, 16, 0.2, 2.0)]
)
def test_steps_to_leave_are_those_predicted_from_the_curvature(n, d, temperature, rate):
    growth = predicted_growth(n, rate, temperature)
    images = next(
        level.eigenvalue
        for level in pole_levels(n, 0, d, temperature)
        if level.motion == "images part"
    )
    assert growth == pytest.approx(1 - rate * images, rel=1e-12)
    taken = {}
    for noise in (1e-3, 1e-5, 1e-7):
        start = direction(d) + noise * normal(2 * n, d, seed=1)
        steps = math.ceil(math.log(0.1 / noise) / math.log(growth)) + 20
        escape = descend(start, rate, steps, temperature)
        expected = math.log(0.1 / escape.spread[0].item()) / math.log(growth)
        taken[noise] = present(escape.steps_to(0.1))
        assert taken[noise] == pytest.approx(expected, rel=0.02, abs=1.5)
        assert escape.loss[-1] < escape.loss[0]
    per_decade = (taken[1e-7] - taken[1e-3]) / 4
    assert per_decade == pytest.approx(math.log(10) / math.log(growth), rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_noise_nothing_ever_moves(dtype):
    z = torch.full((12, 4), 0.5, dtype=dtype)
    assert stuck(z, 1.0, 0.5)
    escape = descend(z, 1.0, 50, 0.5)
    assert (escape.spread == 0).all()
    assert (escape.loss == escape.loss[0]).all()
    assert escape.steps_to(0.1) is None


@pytest.mark.parametrize("rate", [1.0, 0.1, 0.01])
def test_float32_loses_noise_below_rounding_over_growth(rate):
    n, d = 16, 4
    floor = torch.finfo(torch.float32).eps / 2 * 0.5 / (predicted_growth(n, rate, 0.5) - 1)
    line = torch.full((d,), 0.5, dtype=torch.float64)

    def start(noise):
        return line + noise * normal(2 * n, d, seed=2)

    assert stuck(start(floor / 8).float(), rate, 0.5)
    assert not stuck(start(floor / 8), rate, 0.5)
    still = descend(start(floor / 8).float(), rate, 20, 0.5)
    assert torch.equal(still.spread, still.spread[:1].expand(21))
    # Ten times above, it grows as in float64.
    grown = [descend(start(10 * floor).to(t), rate, 20, 0.5) for t in (torch.float32, line.dtype)]
    assert grown[1].spread[-1] > grown[1].spread[0]
    single, double = (found.spread[-1] / found.spread[0] - 1 for found in grown)
    assert single.item() == pytest.approx(double.item(), rel=0.2)


def test_in_bfloat16_nearly_equal_rows_are_equal():
    z = torch.full((4,), 0.5, dtype=torch.float64) + 1e-4 * normal(12, 4)
    assert gradient(z, 0.5).abs().max() > 1e-6
    assert (gradient(z.bfloat16(), 0.5) == 0).all()


@pytest.fixture(scope="module")
def demo():
    return overfusion_demo(0)


def test_demo_finds_what_it_predicts(demo):
    for spectrum in demo.spectra:
        assert spectrum.gradient < 1e-10
        assert spectrum.measured[0] < -0.1 < 0.1 < spectrum.measured[-1]
        assert len(spectrum.measured) == sum(level.directions for level in spectrum.levels)
    for descent in demo.descents:
        assert descent.escape.steps_to(demo.escaped) == descent.predicted
    assert {descent.predicted is None for descent in demo.descents} == {True, False}


def test_figures_carry_their_numbers(demo):
    with style():
        curvature, escape = curvature_figure(demo.spectra), escape_figure(demo)
    rows = list(csv.DictReader(io.StringIO(curvature.table)))
    assert len(rows) == sum(len(spectrum.measured) for spectrum in demo.spectra)
    for row in rows:
        assert float(row["measured"]) == pytest.approx(float(row["closed_form"]), abs=1e-6)
    rows = list(csv.DictReader(io.StringIO(escape.table)))
    assert len(rows) == sum(len(descent.escape.spread) for descent in demo.descents)
    shown = [row for row in rows if row["predicted"] and row["precision"] == "float64"]
    assert len(shown) > 300
    for row in shown:
        assert float(row["spread"]) == pytest.approx(float(row["predicted"]), rel=0.05)
    assert "lost in rounding" in escape.svg
    assert "images part" in curvature.svg
