"""Orthonormal class directions and the regression onto them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from narrow import gradient_of

from headwise.errors import UserError
from headwise.losses import direction_regression, nt_xent, orthonormal_directions


@settings(deadline=None, max_examples=30)
@given(classes=st.integers(1, 12), more=st.integers(0, 8), seed=st.integers(0, 999))
def test_directions_are_orthonormal_and_a_function_of_the_seed(classes, more, seed):
    directions = orthonormal_directions(classes, classes + more, seed)
    assert directions.shape == (classes, classes + more)
    torch.testing.assert_close(directions @ directions.T, torch.eye(classes), rtol=0, atol=1e-6)
    assert torch.equal(directions, orthonormal_directions(classes, classes + more, seed))
    other = orthonormal_directions(classes, classes + more, seed + 1)
    assert classes + more == 1 or not torch.equal(directions, other)


def test_directions_are_drawn_evenly():
    first = torch.stack([orthonormal_directions(2, 3, seed)[0] for seed in range(400)])
    assert first.mean(0).norm() < 0.15  # 400 directions: 0.05 is usual
    torch.testing.assert_close(first.T @ first / 400, torch.eye(3) / 3, rtol=0, atol=0.08)


def test_too_many_classes_are_refused():
    with pytest.raises(UserError, match="11 classes in 10 dimensions"):
        orthonormal_directions(11, 10, 0)


def draw(n: int, d: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_value_is_minus_the_mean_cosine_of_labelled_rows():
    z, directions = draw(5, 4), orthonormal_directions(3, 4, 0)
    labels = torch.tensor([2, -1, 0, -1, 2])
    cosines = [(z[i] @ directions[labels[i]].double() / z[i].norm()).item() for i in (0, 2, 4)]
    found = direction_regression(z, labels, directions)
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(-sum(cosines) / 3, rel=1e-12)


def test_least_at_the_directions_whatever_the_norm():
    directions = orthonormal_directions(4, 7, 1)
    labels = torch.tensor([3, 0, 1, 2, 0])
    z = (torch.logspace(-2, 2, 5)[:, None] * directions[labels]).requires_grad_()
    loss = direction_regression(z, labels, directions)
    loss.backward()
    assert loss.item() == pytest.approx(-1, abs=1e-6)
    assert gradient_of(z).abs().max() < 1e-5


def test_gradient():
    z, directions = draw(6, 5).requires_grad_(), orthonormal_directions(3, 5, 0).double()
    labels = torch.tensor([0, 2, -1, 1, 1, -1])
    assert torch.autograd.gradcheck(lambda rows: direction_regression(rows, labels, directions), z)


def test_unlabelled_rows_take_no_part():
    z, directions = draw(6, 5).requires_grad_(), orthonormal_directions(3, 5, 0)
    labels = torch.tensor([0, 2, -1, 1, 1, -1])
    loss = direction_regression(z, labels, directions)
    loss.backward()
    assert (gradient_of(z)[labels < 0] == 0).all()
    assert (gradient_of(z)[labels >= 0] != 0).any(1).all()
    assert loss.item() == pytest.approx(
        direction_regression(z[labels >= 0], labels[labels >= 0], directions).item(), rel=1e-12
    )


def test_without_labelled_rows_the_loss_is_zero_and_has_a_gradient():
    z = draw(4, 5).requires_grad_()
    loss = direction_regression(z, torch.full((4,), -1), orthonormal_directions(3, 5, 0))
    loss.backward()
    assert loss.item() == 0
    assert (gradient_of(z) == 0).all()


def test_loss_is_in_float32_under_autocast():
    z, labels = draw(8, 5).bfloat16(), torch.arange(8) % 3
    directions = orthonormal_directions(3, 5, 0)
    with torch.autocast("cpu", torch.bfloat16):
        found = direction_regression(z, labels, directions)
    assert found.dtype == torch.float32
    assert found.item() == direction_regression(z.float(), labels, directions).item()


def test_directions_break_the_stationary_point_of_equal_projections():
    """NT-Xent has no slope where all rows are equal; with labels of two classes this loss has one,
    wherever the rows are, a class direction included."""
    directions, labels = orthonormal_directions(3, 5, 0).double(), torch.tensor([0, 1, 0, 1])
    for direction in (draw(1, 5)[0], directions[0]):
        z = (direction / direction.norm()).expand(4, 5).clone().requires_grad_()
        (alone,) = torch.autograd.grad(nt_xent(z, z, 0.5), z)
        (slope,) = torch.autograd.grad(
            nt_xent(z, z, 0.5) + direction_regression(z, labels, directions), z
        )
        assert alone.abs().max() < 1e-12
        assert slope.norm() > 0.1
        moved = z.detach() - 0.1 * slope
        apart = torch.nn.functional.normalize(moved, dim=1)
        assert (apart[0] - apart[1]).norm() > 0.01  # classes part
        torch.testing.assert_close(apart[0], apart[2], rtol=0, atol=1e-12)  # a class stays together
