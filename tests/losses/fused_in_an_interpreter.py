"""The fused kernels against the dense form in float64; run by test_losses.py."""

import torch

from headwise.losses import fused, nt_xent_and_accuracy

# Sizes below, at and across the blocks of 32 and 64 rows; widths that are no power of two.
CASES = [(2, 3, 0.5), (7, 3, 1.0), (16, 16, 0.1), (32, 20, 0.02), (45, 128, 0.5), (40, 16, 0.005)]


def results(z0, z1, temperature, method, mates):
    a, b, t = (x.clone().requires_grad_() for x in (z0, z1, torch.tensor(temperature).to(z0)))
    loss, accuracy = nt_xent_and_accuracy(a, b, t, method, mates=mates)
    slopes = torch.autograd.grad(loss, (a, b, t))
    return loss.detach(), accuracy, torch.cat(slopes[:2]), slopes[2]


def check(z0, z1, temperature, tolerance, mates=None):
    exact, accuracy, gradient, slope = results(
        z0.double(), z1.double(), temperature, "dense", mates
    )
    loss, our_accuracy, ours, our_slope = results(z0, z1, temperature, "fused", mates)
    assert abs(loss - exact) <= tolerance * (1 + exact), (loss, exact)
    assert our_accuracy == accuracy, (our_accuracy, accuracy)
    error = (ours.double() - gradient).norm()
    assert error <= tolerance * (gradient.norm() + 1e-3), (z0.shape, temperature, error)
    # A sum of terms as large as 1/τ², which may cancel.
    assert abs(our_slope - slope) <= tolerance * (abs(slope) + temperature**-2), (our_slope, slope)


calls = []
inner = fused._gradient.run
fused._gradient.run = lambda *args, **kwargs: (
    calls.append(kwargs["PRECISION"]),
    inner(*args, **kwargs),
)
generator = torch.Generator().manual_seed(0)
for n, d, temperature in CASES:
    shared, *noises = (torch.randn(n, d, generator=generator) for _ in range(3))
    z0, z1 = (shared + noise for noise in noises)
    z1[0] = z0[0]
    check(z0, z1, temperature, 5e-6)
    check(torch.randn(n, d, generator=generator), z1, temperature, 5e-6)
check(torch.ones(20, 8), torch.ones(20, 8), 0.02, 5e-6)  # collapsed: all ties, all wrong
a, b = torch.randn(2, 40, 8, generator=generator)
for mates in (torch.arange(40) // 5, torch.arange(40) % 3 - 1, torch.zeros(40, dtype=torch.int64)):
    check(a, b, 0.1, 5e-6, mates)
assert set(calls) == {"tf32x3"}, calls

half0, half1 = (torch.randn(20, 8, generator=generator).half() for _ in "01")
check(half0, half1, 0.5, 1e-3)
assert calls[-1] == "tf32", calls
torch.set_float32_matmul_precision("high")
check(z0, z1, 0.5, 1e-3)
assert calls[-1] == "tf32", calls
