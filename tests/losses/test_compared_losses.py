"""The losses beside NT-Xent against their papers' formulas as loops, and against other code."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from lightly.loss import DCLLoss
from narrow import present
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import SupConLoss, TripletMarginLoss
from pytorch_metric_learning.reducers import MeanReducer
from torch import Tensor

from headwise.errors import UserError
from headwise.losses import (
    class_cross_entropy,
    contrastive_entropy,
    dcl,
    margin_triplet,
    nt_logistic,
    nt_xent,
    supcon,
)

Rows = list[np.ndarray]
LABELS = torch.tensor([0, 1, 0, -1, 2, 1, -1])
MARGIN = 0.4


def views(n: int = 7, d: int = 5, seed: int = 0, noise: float = 0.7) -> tuple[Tensor, Tensor]:
    """Two views whose twins resemble each other, of unlike norms, in float64."""
    generator = torch.Generator().manual_seed(seed)
    shared, first, second = torch.randn(3, n, d, generator=generator).double()
    norms = torch.logspace(-1, 1, n)[:, None].double()
    return norms * (shared + noise * first), norms * (shared + noise * second)


def unit(v: np.ndarray) -> np.ndarray:
    return v / math.sqrt(sum(x * x for x in v))


def dot(u: np.ndarray, v: np.ndarray) -> float:
    return float(u @ v)


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def anchors(rows: Rows) -> list[tuple[np.ndarray, np.ndarray, Rows]]:
    """Each row as u, with its v⁺ and every v⁻: the rows of other images."""
    m = len(rows)
    twin = [(i + m // 2) % m for i in range(m)]
    return [
        (rows[i], rows[twin[i]], [rows[j] for j in range(m) if j not in (i, twin[i])])
        for i in range(m)
    ]


def semi_hard(u: np.ndarray, positive: np.ndarray, others: Rows) -> Rows:
    """FaceNet: further away than the positive, and of those the closest."""
    further = [v for v in others if (u - v) @ (u - v) > (u - positive) @ (u - positive)]
    return sorted(further, key=lambda v: (u - v) @ (u - v))[:1]


def logistic_loops(rows: Rows, tau: float, *, mined: bool = False, plain: bool = False) -> float:
    """SimCLR, Table 2: log σ(uᵀv⁺/τ) + log σ(−uᵀv⁻/τ) is maximised."""
    found = []
    for u, positive, others in anchors(rows if plain else [unit(row) for row in rows]):
        negatives = semi_hard(u, positive, others) if mined else others
        pushed = [-math.log(sigma(-dot(u, v) / tau)) for v in negatives]
        found.append(-math.log(sigma(dot(u, positive) / tau)) + (mean(pushed) if pushed else 0))
    return mean(found)


def margin_loops(rows: Rows, *, mined: bool = False) -> float:
    """SimCLR, Table 2: −max(uᵀv⁻ − uᵀv⁺ + m, 0) is maximised."""
    found = []
    for u, positive, others in anchors([unit(row) for row in rows]):
        negatives = semi_hard(u, positive, others) if mined else others
        # Semi-hard negatives are within the margin.
        kept = [v for v in negatives if not mined or dot(u, positive) - dot(u, v) < MARGIN]
        costs = [max(dot(u, v) - dot(u, positive) + MARGIN, 0) for v in kept]
        found.append(mean(costs) if costs else 0.0)
    return mean(found)


def dcl_loops(rows: Rows, tau: float) -> float:
    """arXiv 2110.06848, equation 6."""
    return mean(
        [
            -dot(u, positive) / tau + math.log(sum(math.exp(dot(u, v) / tau) for v in others))
            for u, positive, others in anchors([unit(row) for row in rows])
        ]
    )


def supcon_loops(rows: Rows, tau: float) -> float:
    """arXiv 2004.11362, equation 2, divided by the number of anchors."""
    z, found = [unit(row) for row in rows], []
    labels, m = [*LABELS.tolist()] * 2, len(rows)
    for i in range(m):
        others = [a for a in range(m) if a != i]
        twin = (i + m // 2) % m
        positives = [p for p in others if p == twin or labels[p] == labels[i] >= 0]
        below = sum(math.exp(dot(z[i], z[a]) / tau) for a in others)
        found.append(mean([-math.log(math.exp(dot(z[i], z[p]) / tau) / below) for p in positives]))
    return mean(found)


def xent_loops(rows: Rows, tau: float) -> float:
    """NT-Xent of dot products."""
    found = []
    for u, positive, others in anchors(rows):
        below = sum(math.exp(dot(u, v) / tau) for v in [positive, *others])
        found.append(-math.log(math.exp(dot(u, positive) / tau) / below))
    return mean(found)


def classifier_loops(rows: Rows) -> float:
    labels = [*LABELS.tolist()] * 2
    return mean(
        [
            -math.log(math.exp(z[label]) / sum(math.exp(x) for x in z))
            for z, label in zip(rows, labels, strict=True)
            if label >= 0
        ]
    )


def typed(wrong: Any) -> Any:
    """A word that the type checker would find."""
    return wrong


Loss = Callable[[Tensor, Tensor], Tensor]
CASES: dict[str, tuple[Loss, Callable[[Rows], float]]] = {
    "nt-logistic": (partial(nt_logistic, temperature=0.3), partial(logistic_loops, tau=0.3)),
    "nt-logistic, semi-hard": (
        partial(nt_logistic, temperature=0.3, negatives="semi-hard"),
        partial(logistic_loops, tau=0.3, mined=True),
    ),
    "nt-logistic of dot products": (
        partial(nt_logistic, temperature=20.0, normalised=False),
        partial(logistic_loops, tau=20, plain=True),
    ),
    "margin": (partial(margin_triplet, margin=MARGIN), margin_loops),
    "margin, semi-hard": (
        partial(margin_triplet, margin=MARGIN, negatives="semi-hard"),
        partial(margin_loops, mined=True),
    ),
    "dcl": (partial(dcl, temperature=0.3), partial(dcl_loops, tau=0.3)),
    "supcon": (partial(supcon, labels=LABELS, temperature=0.3), partial(supcon_loops, tau=0.3)),
    "cross-entropy": (partial(class_cross_entropy, labels=LABELS), classifier_loops),
    "nt-xent of dot products": (
        partial(nt_xent, temperature=20.0, normalised=False),
        partial(xent_loops, tau=20),
    ),
    "nt-xent of dot products in tiles": (
        partial(nt_xent, temperature=20.0, method="tiled", normalised=False),
        partial(xent_loops, tau=20),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_those_of_the_formula(name: str) -> None:
    loss, loops = CASES[name]
    z0, z1 = (z.requires_grad_() for z in views())
    rows = torch.cat([z0, z1]).detach().numpy()
    value = loss(z0, z1)
    assert value.item() == pytest.approx(loops([*rows]), rel=1e-9)
    value.backward()
    gradient = torch.cat([present(z.grad) for z in (z0, z1)])
    assert gradient.abs().max() > 1e-3
    for place in np.ndindex(rows.shape):
        step = 1e-6 * max(1.0, abs(rows[place]))
        ends = []
        for sign in (1, -1):
            moved = rows.copy()
            moved[place] += sign * step
            ends.append(loops([*moved]))
        slope = (ends[0] - ends[1]) / (2 * step)
        assert gradient[place].item() == pytest.approx(slope, rel=1e-5, abs=1e-7), place


def of_library(criterion: torch.nn.Module, labels: Tensor) -> Loss:
    return lambda z0, z1: criterion(torch.cat([z0, z1]), labels.repeat(2))


@pytest.mark.parametrize(
    ("loss", "other"),
    [
        (partial(dcl, temperature=0.2), DCLLoss(temperature=0.2)),
        (
            partial(supcon, labels=LABELS.clamp(min=0), temperature=0.2),
            of_library(SupConLoss(temperature=0.2, reducer=MeanReducer()), LABELS.clamp(min=0)),
        ),
        (
            partial(margin_triplet, margin=0.3),
            of_library(
                TripletMarginLoss(0.3, distance=CosineSimilarity(), reducer=MeanReducer()),
                torch.arange(7),
            ),
        ),
    ],
    ids=["lightly's DCL", "pml's SupCon", "pml's triplets"],
)
def test_other_implementations_agree(loss: Loss, other: Loss) -> None:
    found = []
    for one in (loss, other):
        z0, z1 = (z.requires_grad_() for z in views())
        value = one(z0, z1)
        found.append([value, *torch.autograd.grad(value, (z0, z1))])
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("temperature", [0.5, 0.02])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_rows_have_the_values_that_the_docstrings_name(
    temperature: float, dtype: torch.dtype
) -> None:
    z = torch.randn(8, generator=torch.Generator().manual_seed(0)).expand(5, 8).to(dtype)
    labels = LABELS[:5]
    pulled, pushed = math.log1p(math.exp(-1 / temperature)), 1 / temperature
    expected = {
        dcl(z, z, temperature): math.log(8),
        supcon(z, z, labels, temperature): math.log(9),
        nt_logistic(z, z, temperature): pulled + pushed + pulled,
        margin_triplet(z, z, 0.3): 0.3,
        class_cross_entropy(0 * z, 0 * z, labels): math.log(8),
    }
    for found, value in expected.items():
        assert found.dtype == torch.float32
        assert found.item() == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("kind", ["collapsed", "independent", "alike"])
@pytest.mark.parametrize("name", ["dcl", "supcon", "nt-logistic", "semi-hard", "dot products"])
def test_a_low_temperature_is_finite_and_right(name: str, kind: str) -> None:
    """At τ = 0.02, under autocast, against float64."""
    losses: dict[str, Loss] = {
        "dcl": partial(dcl, temperature=0.02),
        "supcon": partial(supcon, labels=LABELS, temperature=0.02),
        "nt-logistic": partial(nt_logistic, temperature=0.02),
        "semi-hard": partial(nt_logistic, temperature=0.02, negatives="semi-hard"),
        "dot products": partial(nt_xent, temperature=0.02, normalised=False),
    }
    z0, z1 = (z.float() for z in views(noise=0.05))
    match kind:
        case "collapsed":
            z0 = z1 = torch.ones(7, 5)
        case "independent":
            z1 = views(seed=1)[0].float()

    def measured(dtype: torch.dtype) -> list[Tensor]:
        a, b = (z.to(dtype, copy=True).requires_grad_() for z in (z0, z1))
        with torch.autocast("cpu", torch.bfloat16):
            value = losses[name](a, b)
        assert value.dtype == dtype
        found = [value, *torch.autograd.grad(value, (a, b))]
        return [tensor.detach().double() for tensor in found]

    value, *exact = measured(torch.float64)
    found, *slopes = measured(torch.float32)
    if (name, kind) == ("semi-hard", "collapsed"):  # rounding decides what is further away
        assert all(tensor.isfinite().all() for tensor in (found, *slopes))
        return
    torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-5)
    scale = max(slope.abs().max().item() for slope in exact)
    torch.testing.assert_close(slopes, exact, rtol=0, atol=1e-4 * scale + 1e-4)


def test_an_anchor_without_a_semi_hard_negative() -> None:
    """Every negative is nearer than the twin: nothing is pushed, and no number is infinite."""
    near, far = torch.tensor([[1.0, 0.1], [1.0, -0.1]]), torch.tensor([[-0.1, 1.0], [0.1, -1.0]])
    z0, z1 = (torch.cat([a, b]).double().requires_grad_() for a, b in ((near, far), (far, near)))
    value = margin_triplet(z0, z1, 0.5, "semi-hard")
    (slope,) = torch.autograd.grad(value, z0)
    assert value.isfinite()
    assert slope.isfinite().all()
    rows = [*torch.cat([z0, z1]).detach().numpy()]
    found = nt_logistic(z0, z1, 0.5, "semi-hard").item()
    assert found == pytest.approx(logistic_loops(rows, 0.5, mined=True))


def test_supcon_without_labels_is_nt_xent_and_labels_alone_leave_it() -> None:
    z0, z1 = views()
    unknown = torch.full((7,), -1)
    expected = nt_xent(z0, z1, 0.3).item()
    assert supcon(z0, z1, unknown, 0.3).item() == pytest.approx(expected)
    assert supcon(z0, z1, torch.arange(7), 0.3).item() == pytest.approx(expected)


def test_cross_entropy_without_labels_is_nothing() -> None:
    z0, z1 = (z.requires_grad_() for z in views())
    value = class_cross_entropy(z0, z1, torch.full((7,), -1))
    assert value.item() == 0
    assert not torch.autograd.grad(value, z0)[0].any()


@pytest.mark.parametrize("normalised", [True, False])
def test_entropy_is_that_of_the_softmax_over_candidates(
    normalised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    z0, z1 = views()
    rows = [unit(row) if normalised else row for row in torch.cat([z0, z1]).numpy()]
    expected = []
    for u, positive, others in anchors(rows):
        weights = [math.exp(dot(u, v) / 5) for v in [positive, *others]]
        shares = [weight / sum(weights) for weight in weights]
        expected.append(-sum(share * math.log(share) for share in shares))
    for height in (512, 3):
        monkeypatch.setattr("headwise.losses.dense._ROWS", height)
        found = contrastive_entropy(z0, z1, 5.0, normalised=normalised)
        assert found.item() == pytest.approx(mean(expected), rel=1e-9)
    flat = torch.ones(6, 4)
    assert contrastive_entropy(flat, flat, 0.02).item() == pytest.approx(math.log(11))
    sharp = torch.eye(6)
    assert contrastive_entropy(sharp, sharp, 0.001).item() == pytest.approx(0)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (partial(dcl, temperature=0.0), "temperature must be positive"),
        (partial(nt_logistic, temperature=math.nan), "temperature must be positive"),
        (partial(margin_triplet, margin=0.0), "the margin must be positive and finite; got 0.0"),
        (partial(supcon, labels=LABELS[:5]), "a label for each of the 7 images; got \\[5\\]"),
        (partial(class_cross_entropy, labels=LABELS[:5]), "a label for each of the 7 images"),
        (partial(nt_logistic, negatives=typed("semihard")), "did you mean 'semi-hard'"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_are_one_line(loss: Loss, message: str) -> None:
    with pytest.raises(UserError, match=message):
        loss(*views())


@pytest.mark.parametrize("loss", [dcl, nt_logistic, margin_triplet])
def test_one_image_has_no_negatives(loss: Loss) -> None:
    with pytest.raises(UserError, match="at least 2 images, to have negatives; got 1"):
        loss(torch.ones(1, 4), torch.ones(1, 4))
