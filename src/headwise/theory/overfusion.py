"""Over-fusion of NT-Xent: projections that are all equal, or all on one line, get no gradient.

The gradient of NT-Xent is a combination of the rows. If all rows are on one line, its part along
the sphere is zero, and the rows stay (arXiv 2403.18699). What happens near the line depends on the
second derivative. Let row i be s_i (v + δ_i), to be normalised, with s_i = ±1 and δ_i orthogonal
to v. The cosine of two rows is s_i s_k (1 − |δ_i − δ_k|² / 2) to second order, so

    loss ≈ constant + 1/(2mτ) Σ_ik W_ik |δ_i − δ_k|²,   W_ik = s_i s_k ([k is i's twin] − p_ik)

where p is the softmax of anchor i over its candidates. The Hessian is 2/(mτ) times the Laplacian of
the symmetric part of W, once for each of the d − 1 directions orthogonal to v. docs/theory.md gives
its eigenvalues and their consequences.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from headwise import rng
from headwise.losses import contrastive_logits, nt_xent

_ESCAPED = 0.1
"""Up to this spread the loss is quadratic, with an error of a few per cent."""


class Level(NamedTuple):
    """An eigenvalue of the Hessian on the sphere, and the motion that belongs to it."""

    motion: str
    eigenvalue: float
    directions: int
    """Its multiplicity."""


def pole_levels(plus: int, minus: int, d: int, temperature: float) -> tuple[Level, ...]:
    """Return the Hessian's spectrum in closed form, for `plus` images with their twins at one pole
    of a line and `minus` at the other (0: all rows are equal), at length one in `d` dimensions."""
    m = 2 * (plus + minus)
    plus_same, plus_other = _softmax(2 * plus, 2 * minus, temperature)
    other_pole = _softmax(2 * minus, 2 * plus, temperature) if minus else (0.0, plus_other)
    minus_same, minus_other = other_pole
    across = (plus_other + minus_other) / 2
    scale = 2 / (m * temperature)
    images = 2 * minus * across - 2 * plus * plus_same
    levels = [
        Level("all rows turn together", 0.0, d - 1),
        Level("images part", scale * images, (plus - 1) * (d - 1)),
        Level("twins part", scale * (2 + images), plus * (d - 1)),
    ]
    if minus:
        images = 2 * plus * across - 2 * minus * minus_same
        levels += [
            Level("images part at the other pole", scale * images, (minus - 1) * (d - 1)),
            Level("twins part at the other pole", scale * (2 + images), minus * (d - 1)),
            Level("the poles bend towards each other", scale * m * across, d - 1),
        ]
    return tuple(level for level in levels if level.directions)


def _softmax(same: int, opposite: int, temperature: float) -> tuple[float, float]:
    """Return the softmax of an anchor for another row at its pole, which has `same` rows, and for a
    row at the other pole, which has `opposite` rows."""
    far = math.exp(-2 / temperature)
    total = same - 1 + opposite * far
    return 1 / total, far / total


def rank_one_spectrum(signs: Float[Tensor, " m"], temperature: float) -> Float[Tensor, " m"]:
    """Return the Hessian's eigenvalues from the Laplacian if row i is `signs[i]` (±1) times one
    direction; twins may differ in sign. Each has multiplicity d − 1. In float64, ascending."""
    signs = signs.double()[:, None]
    n = len(signs) // 2
    logits, twins = contrastive_logits(signs[:n], signs[n:], temperature)
    weights = F.one_hot(twins, 2 * n) - logits.softmax(1)
    weights = (weights + weights.T) / 2 * (signs @ signs.T)
    laplacian = weights.sum(1).diag() - weights
    return torch.linalg.eigvalsh(laplacian) / (n * temperature)


def gradient(z: Float[Tensor, "m d"], temperature: float) -> Float[Tensor, "m d"]:
    """Return the gradient of NT-Xent for projections that the loss normalises."""
    return _value_and_gradient(z, temperature)[1]


def measured_spectrum(
    signs: Float[Tensor, " m"], direction: Float[Tensor, " d"], temperature: float
) -> Float[Tensor, " k"]:
    """Return all `k = m (d − 1)` eigenvalues of NT-Xent on the sphere at `signs` times `direction`
    (of length one), by automatic differentiation. In float64, ascending."""
    m, d = len(signs), len(direction)
    signs, direction = signs.double(), direction.double()
    projector = torch.eye(d, dtype=torch.float64) - direction.outer(direction)
    tangent = torch.linalg.eigh(projector).eigenvectors[:, 1:]  # the first is the direction itself

    def loss(deviation: Tensor) -> Tensor:
        rows = direction + deviation.view(m, d - 1) @ tangent.T
        return _loss(signs[:, None] * rows, temperature)

    hessian = torch.autograd.functional.hessian(loss, direction.new_zeros(m * (d - 1)))
    assert isinstance(hessian, Tensor)
    return torch.linalg.eigvalsh(hessian)


def predicted_growth(n: int, rate: float, temperature: float) -> float:
    """Return the factor by which a step of descent increases the spread of `n` images near the
    collapse, for projections of length one. At length ρ, use the rate over ρ²."""
    return 1 + 2 * rate / ((2 * n - 1) * temperature)


def stuck(z: Float[Tensor, "m d"], rate: float, temperature: float) -> bool:
    """Return whether rounding removes a whole step of descent, and so every later step.

    A step changes a coordinate by `predicted_growth − 1` times its deviation. Rounding removes this
    if it is less than half a unit in the last place of the coordinate.
    """
    return torch.equal(z - rate * gradient(z, temperature), z)


class Escape(NamedTuple):
    """The course of gradient descent on projections: before the first step, and after each step."""

    spread: Float[Tensor, " s"]
    """Root mean square deviation of the images (means of twins at length one) from their mean."""
    loss: Float[Tensor, " s"]

    def steps_to(self, spread: float) -> int | None:
        """Return the first step with this spread, or None if it is not reached."""
        reached = (self.spread >= spread).nonzero()
        return int(reached[0]) if len(reached) else None


def descend(z: Float[Tensor, "m d"], rate: float, steps: int, temperature: float) -> Escape:
    """Run gradient descent of NT-Xent on the projections themselves, in their precision."""
    spreads, losses = [], []
    for _ in range(steps + 1):
        images = F.normalize(z.double(), dim=1).view(2, -1, z.shape[1]).mean(0)
        spreads.append((images - images.mean(0)).square().sum(1).mean().sqrt())
        loss, slope = _value_and_gradient(z, temperature)
        losses.append(loss)
        z = z - rate * slope
    return Escape(torch.stack(spreads), torch.stack(losses))


def _value_and_gradient(
    z: Float[Tensor, "m d"], temperature: float
) -> tuple[Float[Tensor, ""], Float[Tensor, "m d"]]:
    z = z.detach().requires_grad_()
    loss = _loss(z, temperature)
    return loss.detach(), torch.autograd.grad(loss, z)[0]


def _loss(z: Float[Tensor, "m d"], temperature: float) -> Float[Tensor, ""]:
    z0, z1 = z.chunk(2)
    return nt_xent(z0, z1, temperature, "dense")


class Spectrum(NamedTuple):
    """The spectrum at a stationary point, by theory and by automatic differentiation."""

    title: str
    levels: tuple[Level, ...]
    measured: Float[Tensor, " k"]
    gradient: float
    """The largest entry of the gradient."""


class Descent(NamedTuple):
    """A descent that starts from equal rows plus noise."""

    noise: float
    """Standard deviation of every coordinate, for projections of length one."""
    dtype: torch.dtype
    escape: Escape
    predicted: int | None
    """Number of steps to `OverfusionDemo.escaped`, from the spread at the start. None for never."""


class OverfusionDemo(NamedTuple):
    """Spectra at two stationary points, and descents from one of them."""

    spectra: tuple[Spectrum, ...]
    descents: tuple[Descent, ...]
    growth: float
    """The predicted factor of the spread per step."""
    escaped: float
    """The spread from which on a descent has escaped."""


# Standard deviation of the noise, and the precision of the projections.
_DESCENTS = (
    (1e-2, torch.float64),
    (1e-5, torch.float64),
    (1e-8, torch.float64),
    (1e-11, torch.float64),
    (0.0, torch.float64),
    (1e-5, torch.float32),
    (1e-8, torch.float32),
)


def overfusion_demo(seed: int, temperature: float = 0.5) -> OverfusionDemo:
    """Return the spectra at two stationary points of 6 images in 4 dimensions, and descents of 16
    images in 8 dimensions from equal rows plus ever less noise. This takes a few seconds."""
    spectra = (
        _spectrum("all rows equal", 6, 0, temperature),
        _spectrum("half the images at each pole", 3, 3, temperature),
    )
    n, d, rate = 16, 8, 1.0
    growth = predicted_growth(n, rate, temperature)
    noise = torch.randn(2 * n, d, generator=rng.generator(seed, "overfusion"), dtype=torch.float64)
    # All coordinates are equal. A smaller one has finer rounding and would escape from less noise.
    direction = torch.full((d,), d**-0.5, dtype=torch.float64)
    descents = []
    for scale, dtype in _DESCENTS:
        start = (direction + scale * noise).to(dtype)
        escape = descend(start, rate, 260, temperature)
        predicted = None
        if not stuck(start, rate, temperature):
            distance = math.log(_ESCAPED / escape.spread[0].item())
            predicted = math.ceil(distance / math.log(growth))
        descents.append(Descent(scale, dtype, escape, predicted))
    return OverfusionDemo(spectra, tuple(descents), growth, _ESCAPED)


def _spectrum(title: str, plus: int, minus: int, temperature: float) -> Spectrum:
    direction = torch.full((4,), 0.5, dtype=torch.float64)
    signs = torch.tensor([1.0] * plus + [-1.0] * minus, dtype=torch.float64).repeat(2)
    return Spectrum(
        title,
        pole_levels(plus, minus, len(direction), temperature),
        measured_spectrum(signs, direction, temperature),
        gradient(signs[:, None] * direction, temperature).abs().max().item(),
    )
