"""The mean-field map of attention over clusters, against random batches and against what it must
do by its own algebra."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from narrow import present

from headwise.errors import UserError
from headwise.theory.checks import CLASSES, RESIDUALS, SHARES, WITHIN, map_point, start
from headwise.theory.limits import (
    balance_per_class,
    least_kept_share,
    minimum_per_class,
    scaled,
    simulated_minimum,
)
from headwise.theory.map import (
    BatchShape,
    Cosines,
    Layer,
    attention_weights,
    fusion_gain,
    gains,
    layers_until,
    mixed,
    next_cosines,
    outcome,
    separation,
    trajectory,
)
from headwise.theory.simulation import attend, draw_tokens, mean_cosines, simulate

BATCH = BatchShape(classes=10, per_class=64, width=256)


@pytest.mark.parametrize("classes", CLASSES)
def test_the_map_is_within_two_percent_of_random_batches(classes):
    errors = {}
    for place, a in enumerate(WITHIN):
        for share in SHARES:
            for residual in RESIDUALS[:2]:
                for beta in (4.0, 6.0, 12.0):
                    layer = Layer(beta=beta, residual=residual)
                    batch = dataclasses.replace(BATCH, classes=classes)
                    point = map_point(start(a, share, classes), layer, batch, seed=place)
                    errors[a, share, residual, beta] = point.error
    worst = max(errors, key=errors.__getitem__)
    assert errors[worst] < 0.02, (worst, errors[worst])


@pytest.mark.parametrize("beta", [3.0, 8.0])
def test_the_map_of_twins_is_within_two_percent(beta):
    batch, layer = BatchShape(classes=4, per_class=64, width=256), Layer(beta=beta)
    before, after = simulate(Cosines(0.3, 0.1, 0.7), layer, batch, 1, seed=1)
    predicted = next_cosines(before, layer, batch)
    assert after.twin is not None
    assert after.twin > present(before.twin) > before.within
    assert predicted == pytest.approx(after, rel=0.02)


def test_the_filter_is_exact_where_weights_depend_on_the_relation_alone():
    """The whole matrix, in float64, with twins and odd weights: W G Wᵀ at unit length."""
    batch = BatchShape(classes=3, per_class=4, width=1e12)
    cosines = Cosines(0.4, 0.15, 0.7)
    weights = attention_weights(cosines, 2.5, batch)
    same = torch.block_diag(*[torch.ones(4, 4)] * 3).double()
    twins = torch.block_diag(*[torch.ones(2, 2)] * 6).double()
    own = torch.eye(12, dtype=torch.float64)

    def matrix(self_, twin, within, between):
        return own * self_ + (twins - own) * twin + (same - twins) * within + (1 - same) * between

    gram = matrix(1.0, 0.7, 0.4, 0.15)
    torch.testing.assert_close((2.5 * gram).softmax(1), matrix(*weights.single))
    for alignment, turned in ((1.0, own), (0.0, torch.zeros(12, 12).double())):
        layer = Layer(beta=2.5, residual=0.8, alignment=alignment)
        attended = matrix(*weights.single)
        # Values turned in unrelated directions have no product with the tokens.
        cross = 0.8 * (attended @ gram + gram @ attended) * turned.diagonal().mean()
        after = 0.64 * gram + cross + attended @ gram @ attended
        after = after / after[0, 0]
        found = mixed(cosines, weights, layer, batch)
        expected = (after[0, 2].item(), after[0, 4].item(), after[0, 1].item())
        assert found == pytest.approx(expected, abs=1e-9)
    centring = own - 1 / 12
    after = centring @ (own + attended) @ gram @ (own + attended) @ centring
    after = after / after[0, 0]
    found = mixed(cosines, weights, Layer(beta=2.5, centred=True), batch)
    expected = (after[0, 2].item(), after[0, 4].item(), after[0, 1].item())
    assert found == pytest.approx(expected, abs=1e-9)


@given(
    a=st.floats(0.05, 0.95),
    share=st.floats(0.0, 0.95),
    beta=st.floats(0.1, 15),
    residual=st.floats(0, 3),
    classes=st.integers(2, 50),
)
@settings(max_examples=200, deadline=None)
def test_what_attention_can_do_to_tokens_with_no_negative_cosines(
    a, share, beta, residual, classes
):
    batch = BatchShape(classes=classes, per_class=1e6, width=1e9)
    cosines, layer = Cosines(a, share * a), Layer(beta=beta, residual=residual)
    after = next_cosines(cosines, layer, batch)
    tiny = 1e-6
    assert after.within >= a - tiny  # attention to like tokens only ever takes noise away
    assert after.between >= cosines.between - tiny  # and never drives classes apart
    assert after.between <= after.within + tiny
    assert after.within <= 1 + tiny
    # The odds of separation grow by the ratio of two gains.
    by = gains(attention_weights(cosines, beta, batch), layer, batch)
    before, then = separation(cosines), separation(after)
    if by.noise[-1] > 1e-6 and then < 1 - 1e-6:
        odds = before / (1 - before) * by.contrast / by.noise[-1]
        assert then / (1 - then) == pytest.approx(odds, rel=1e-3)


def test_fixed_points_and_their_stability():
    layer, batch = Layer(beta=4.0), BatchShape(classes=5, per_class=1000, width=1e9)
    assert next_cosines(Cosines(1.0, 1.0), layer, batch)[:2] == pytest.approx((1, 1))
    simplex = Cosines(1.0, -1 / 4)
    assert next_cosines(simplex, layer, batch)[:2] == pytest.approx(simplex[:2])
    # A small common part grows by the ratio of gains: fused classes go on to merge.
    by = gains(attention_weights(simplex, 4.0, batch), layer, batch)
    common = 1e-6
    after = next_cosines(Cosines(1.0, -1 / 4 + common), layer, batch)
    assert (after.between + 1 / 4) / common == pytest.approx(by.common / by.contrast, rel=1e-3)
    assert by.common > by.contrast
    centred = dataclasses.replace(layer, centred=True)
    assert next_cosines(Cosines(1.0, 1.0), centred, batch)[:2] == (0, 0)
    ends = trajectory(Cosines(0.3, 0.1), centred, batch, 300)[-1]
    assert ends[:2] == pytest.approx(simplex[:2], abs=1e-3)
    assert trajectory(Cosines(0.3, 0.1), layer, batch, 3000)[-1].between > 0.99


def test_negative_beta_lets_unlike_attend():
    batch = BatchShape(classes=2, per_class=1000, width=1e9)
    weights = attention_weights(Cosines(0.5, -0.5), -5.0, batch)
    assert weights.masses[-1] > 0.9
    assert fusion_gain(weights) < 0.1
    positive = attention_weights(Cosines(0.5, -0.5), 5.0, batch)
    same, other = positive.masses[-2:]
    expected = same / (same + other) / (999 / 1999)
    assert fusion_gain(positive) == pytest.approx(expected)


def test_mean_cosines_are_those_of_all_pairs():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([3, 3, 7, 7, 7, 1])
    x = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    unit = x / x.norm(dim=1, keepdim=True)
    pairs: dict[str, list[float]] = {"within": [], "between": [], "twin": []}
    for i in range(12):
        for j in range(12):
            if i != j:
                kind = "within" if labels[i % 6] == labels[j % 6] else "between"
                kind = "twin" if i % 6 == j % 6 else kind
                pairs[kind].append((unit[i] @ unit[j]).item())
    expected = [sum(values) / len(values) for values in pairs.values()]
    assert mean_cosines(x, labels, 2) == pytest.approx(expected)


def test_tokens_have_the_cosines_asked_for():
    x, labels = draw_tokens(
        Cosines(0.5, -0.1, 0.8), BatchShape(classes=4, per_class=256, width=512), 3
    )
    assert mean_cosines(x, labels, 2) == pytest.approx((0.5, -0.1, 0.8), abs=0.01)
    assert x.norm(dim=1) == pytest.approx(torch.ones(1024, dtype=torch.float64))
    again, _ = draw_tokens(
        Cosines(0.5, -0.1, 0.8), BatchShape(classes=4, per_class=256, width=512), 3
    )
    assert torch.equal(x, again)


def test_a_layer_in_blocks_is_the_layer(monkeypatch):
    x, _ = draw_tokens(Cosines(0.5, 0.1), BatchShape(classes=3, per_class=7, width=16), 0)
    weights = (2.0 * x @ x.T).exp()
    y = 0.7 * x + weights / weights.sum(1, keepdim=True) @ x
    expected = y / y.norm(dim=1, keepdim=True)
    monkeypatch.setattr("headwise.theory.simulation.BLOCK_ROWS", 4)
    torch.testing.assert_close(attend(x, Layer(beta=2.0, residual=0.7)), expected)


@pytest.mark.parametrize(
    ("cosines", "batch"),
    [
        (Cosines(0.3, 0.5), BATCH),
        (Cosines(0.5, -0.2), BATCH),
        (Cosines(0.5, 0.1), BatchShape(classes=10, per_class=4, width=8)),
    ],
)
def test_cosines_that_no_tokens_have(cosines, batch):
    with pytest.raises(UserError):
        draw_tokens(cosines, batch, 0)


def test_outcomes_and_layers_until_them():
    layer = Layer(beta=9.0)
    cosines = Cosines(0.6, 0.1)
    fused = layers_until("fusion", cosines, layer, BATCH)
    merged = layers_until("over-fusion", cosines, layer, BATCH)
    assert fused is not None
    assert merged is not None
    assert 0 < fused < merged
    path = trajectory(cosines, layer, BATCH, merged)
    assert [outcome(path[i]) for i in (fused - 1, fused, merged - 1, merged)] == [
        "no fusion",
        "fusion",
        "fusion",
        "over-fusion",
    ]
    assert layers_until("fusion", cosines, Layer(beta=60.0), BATCH, limit=20) is None


def test_the_least_batch_is_where_random_batches_begin_to_fuse():
    cosines, layer = Cosines(0.4, 0.1), Layer(beta=7.0)
    check = simulated_minimum(cosines, layer, BatchShape(classes=4, per_class=2, width=256), 4, [0])
    assert check is not None
    assert check.simulated == pytest.approx(check.predicted, rel=0.15)
    batch = dataclasses.replace(BATCH, classes=4)
    for factor, fused in ((0.9, False), (1.1, True)):
        size = dataclasses.replace(batch, per_class=factor * check.predicted)
        assert (trajectory(cosines, layer, size, 4)[-1].within >= 0.9) is fused
    assert minimum_per_class(cosines, Layer(beta=80.0), batch, 4) is None


def test_balance_is_where_class_and_self_have_equal_mass():
    cosines = Cosines(0.4, 0.0)
    n = balance_per_class(cosines, 5.0, 256)
    own, within, _ = attention_weights(cosines, 5.0, dataclasses.replace(BATCH, per_class=n)).masses
    assert own == pytest.approx(within, rel=0.05)


def test_the_least_kept_share_is_an_edge_of_fusion():
    cosines, layer = Cosines(0.8, 0.1), Layer(beta=6.0)
    share = least_kept_share(cosines, layer, BATCH, 4)
    assert share is not None
    assert 0 < share < 1
    for factor, expected in ((0.97, False), (1.03, True)):
        end = trajectory(scaled(cosines, factor * share), layer, BATCH, 4)[-1]
        assert (outcome(end) == "fusion") is expected
    assert least_kept_share(Cosines(0.2, 0.1), layer, BATCH, 1) is None
    assert math.isclose(scaled(Cosines(0.8, 0.1, 0.9), 0.5).twin or 0, 0.45)
