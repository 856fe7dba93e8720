import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from narrow import present
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix

from headwise.data.split import balanced_fraction
from headwise.errors import UserError
from headwise.evaluation.probes.logistic import fit_logistic
from headwise.evaluation.protocols.linear import PENALTIES, linear, linear_probe
from headwise.features.extract import Features

FEW = (100.0, 1.0, 1e-2, 1e-4)


def table(n: int, seed: int = 0, p: int = 12, classes: int = 4, offset: float = 3.0):
    """Overlapping classes, features of very unlike sizes, and an offset."""
    centres = torch.randn(classes, p, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=generator)
    x = centres[y] + 1.5 * torch.randn(n, p, generator=generator)
    return offset + x * torch.logspace(1, -1.5, p), y


def objective(weight, bias, x, y, penalty):
    logits = x.double() @ weight.double().T + bias.double()
    loss = torch.nn.functional.cross_entropy(logits, y)
    return (loss + penalty / 2 * weight.double().square().sum()).item()


@pytest.mark.parametrize("penalty", [10.0, 0.1, 1e-3, 1e-5])
def test_the_minimum_is_scikit_learns(penalty):
    x, y = table(400, offset=0.0)
    weight, bias = fit_logistic(x, y, num_classes=4, penalty=penalty)
    model = LogisticRegression(C=1 / (400 * penalty), tol=1e-10, max_iter=20000, solver="newton-cg")
    model.fit(x.double().numpy(), y.numpy())
    oracle = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
    found, best = objective(weight, bias, x, y, penalty), objective(*oracle, x, y, penalty)
    assert found == pytest.approx(best, rel=1e-4)
    margins = torch.from_numpy(model.predict_proba(x.double().numpy())).topk(2, dim=1).values
    clear = margins[:, 0] - margins[:, 1] > 0.01
    assert clear.sum() > 300
    predictions = (x @ weight.T + bias).argmax(1)
    assert predictions[clear].tolist() == model.predict(x.double().numpy())[clear].tolist()


def test_separable_classes_and_more_features_than_rows_reach_the_minimum():
    x = torch.randn(40, 100, generator=torch.Generator().manual_seed(0))
    y = torch.arange(40) % 4
    weight, bias = fit_logistic(x, y, num_classes=4, penalty=1e-4)
    model = LogisticRegression(C=1 / (40 * 1e-4), tol=1e-10, max_iter=20000)
    model.fit(x.double().numpy(), y.numpy())
    best = objective(torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_), x, y, 1e-4)
    assert objective(weight, bias, x, y, 1e-4) == pytest.approx(best, rel=1e-4, abs=1e-7)


def test_the_bias_is_free_and_the_start_does_not_matter():
    x, y = table(300)
    weight, bias = fit_logistic(x, y, num_classes=4, penalty=1e6)
    assert weight.abs().max() < 1e-4
    torch.testing.assert_close(bias.softmax(0), y.bincount() / 300, rtol=0, atol=1e-4)
    cold = fit_logistic(x, y, num_classes=4, penalty=0.01)
    warm = fit_logistic(x, y, num_classes=4, penalty=0.01, start=(weight, bias))
    assert objective(*warm, x, y, 0.01) == pytest.approx(objective(*cold, x, y, 0.01), rel=1e-5)


def test_the_path_is_simclrs():
    assert len(PENALTIES) == 45
    assert PENALTIES[0] == pytest.approx(1e5)
    assert PENALTIES[-1] == pytest.approx(1e-6)
    steps = np.diff(np.log10(PENALTIES))
    np.testing.assert_allclose(steps, -0.25)


def test_the_probe_finds_planted_classes_and_near_the_best_accuracy():
    train, y = table(1500)
    test, y_test = table(1000, seed=1)
    result = linear_probe(train, y, test, y_test, seed=0)
    oracle = LogisticRegression(C=1e4, max_iter=20000, solver="newton-cg")
    bound = oracle.fit(train.numpy(), y.numpy()).score(test.numpy(), y_test.numpy())
    assert result.accuracy == pytest.approx(bound, abs=0.015)
    assert result.accuracy == (result.predictions == y_test).double().mean().item()
    assert result.penalties == PENALTIES
    best = max(result.validation_accuracies)
    assert result.penalty == PENALTIES[result.validation_accuracies.index(best)]


def test_the_model_tested_is_retrained_on_all_training_rows_at_the_chosen_penalty():
    train, y = table(200)
    test, y_test = table(300, seed=1)
    result = linear_probe(train, y, test, y_test, seed=0, penalties=[1e-2])
    centred = train.double() - train.double().mean(0)
    scale = centred.square().mean().sqrt()
    model = LogisticRegression(C=1 / (200 * 1e-2), tol=1e-10, max_iter=20000, solver="newton-cg")
    model.fit((centred / scale).numpy(), y.numpy())
    shares = model.predict_proba(((test.double() - train.double().mean(0)) / scale).numpy())
    margins = torch.from_numpy(shares).topk(2, dim=1).values
    clear = margins[:, 0] - margins[:, 1] > 0.01
    assert clear.sum() > 200
    assert result.predictions[clear].tolist() == shares.argmax(1)[clear].tolist()


def test_of_equal_validation_accuracies_the_largest_penalty_wins():
    x = torch.eye(2).repeat(50, 1)
    y = torch.arange(2).repeat(50)
    result = linear_probe(x, y, x, y, seed=0, penalties=[1e-3, 1e-1, 1e-2])
    assert result.penalties == (1e-1, 1e-2, 1e-3)
    assert result.validation_accuracies == (1.0, 1.0, 1.0)
    assert result.penalty == 1e-1


def test_a_rotation_a_scale_and_an_offset_of_the_features_change_nothing():
    train, y = table(400)
    test, y_test = table(300, seed=1)
    rotation = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(0))).Q
    plain = linear_probe(train, y, test, y_test, seed=0, penalties=FEW)
    moved = linear_probe(
        40 * train @ rotation + 5, y, 40 * test @ rotation + 5, y_test, seed=0, penalties=FEW
    )
    assert (plain.predictions != moved.predictions).sum() <= 1
    np.testing.assert_allclose(
        plain.validation_accuracies, moved.validation_accuracies, atol=1.01 / 80
    )


def test_constant_and_collapsed_features_are_finite():
    train, y = table(300)
    test, y_test = table(100, seed=1)
    plain = linear_probe(train, y, test, y_test, seed=0, penalties=FEW)
    padded = [torch.cat([x, torch.full((len(x), 1), 7.0)], dim=1) for x in (train, test)]
    constant = linear_probe(padded[0], y, padded[1], y_test, seed=0, penalties=FEW)
    # The root mean square is over 13 features instead of 12: nearly the same penalties.
    assert (constant.predictions == plain.predictions).float().mean() > 0.95
    collapsed = linear_probe(
        torch.ones(300, 5), y, torch.ones(100, 5), y_test, seed=0, penalties=FEW
    )
    assert set(collapsed.predictions.tolist()) == {int(y.bincount().argmax())}


def test_labels_may_be_any_integers_and_the_seed_decides_the_split_alone():
    train, y = table(200)
    test, y_test = table(100, seed=1)
    plain = linear_probe(train, y, test, y_test, seed=0, penalties=FEW)
    torch.rand(1)  # the global generator has no say
    odd = linear_probe(train, 10 * y.int() - 3, test, 10 * y_test - 3, seed=0, penalties=FEW)
    assert torch.equal(odd.predictions, 10 * plain.predictions - 3)
    assert odd.validation_accuracies == plain.validation_accuracies
    other = linear_probe(train, y, test, y_test, seed=1, penalties=FEW)
    assert other.validation_accuracies != plain.validation_accuracies
    with pytest.raises(FrozenInstanceError):
        odd.accuracy = 1.0  # pyrefly: ignore[read-only]  # what the test is about


def test_every_class_is_validated_on_even_when_it_is_rare():
    """Two images of a class: one to fit on, one to validate on."""
    x = torch.cat([torch.zeros(98, 2), torch.ones(2, 2)])
    x += 0.01 * torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    y = torch.cat([torch.zeros(98), torch.ones(2)]).long()
    result = linear_probe(x, y, x, y, seed=0, penalties=[1e6, 1e-4])
    count = round(0.2 * 98) + 1
    assert result.validation_accuracies == (pytest.approx(1 - 1 / count), 1.0)


def test_errors_name_what_must_hold():
    x, y = table(40)
    probe = lambda *tables, **settings: linear_probe(*tables, seed=0, **settings)  # noqa: E731
    with pytest.raises(UserError, match="at least 2 classes; got 1"):
        probe(x, torch.zeros(40).long(), x, y)
    with pytest.raises(UserError, match="got 1 of class 9"):
        probe(x, y.index_fill(0, torch.tensor(0), 9), x, y)
    with pytest.raises(UserError, match="got class 7 in the test split only"):
        probe(x, y, x, y.index_fill(0, torch.tensor(0), 7))
    with pytest.raises(UserError, match="training features must be finite"):
        probe(x.index_fill(0, torch.tensor(0), math.inf), y, x, y)
    with pytest.raises(UserError, match="penalties must be positive"):
        probe(x, y, x, y, penalties=[0.0])
    with pytest.raises(UserError, match="validation_fraction must lie between 0 and 1"):
        probe(x, y, x, y, validation_fraction=1.0)
    with pytest.raises(UserError, match="at least one test row"):
        probe(x, y, x[:0], y[:0])


def features(vectors, labels):
    return Features(vectors, labels, torch.arange(len(vectors)))


def test_the_protocols_values_are_scikit_learns_of_its_predictions():
    train, y = table(1200, classes=8)
    test, y_test = table(500, seed=1, classes=8)
    top1, top5, per_class = linear("h", features(train, y), features(test, y_test), seed=0)
    assert [v.key for v in (top1, top5, per_class)] == [
        "linear/h",
        "linear_top5/h",
        "linear_per_class/h",
    ]
    result = linear_probe(train, y, test, y_test, seed=0)
    guess = result.predictions.numpy()
    assert top1.value == accuracy_score(y_test, guess) == result.accuracy
    assert per_class.value == pytest.approx(balanced_accuracy_score(y_test, guess))
    np.testing.assert_array_equal(top1.arrays["confusion"], confusion_matrix(y_test, guess))
    assert top1.value < top5.value < 1
    assert (present(top1.each) <= present(top5.each)).all()
    counts = y.bincount().sort(descending=True)
    chances = [torch.isin(y_test, counts.indices[:k]).double().mean().item() for k in (1, 5)]
    assert [v.chance for v in (top1, top5, per_class)] == [*chances, 1 / 8]
    assert top1.settings["penalty"] == result.penalty
    assert top1.settings["labels"] == 1200


def test_the_five_best_are_those_of_highest_score():
    train, y = table(600, classes=8)
    test, y_test = table(100, seed=1, classes=8)
    result = linear_probe(train, 3 * y, test, 3 * y_test, seed=0, penalties=[1e-2])
    mean = train.double().mean(0)
    scale = (train.double() - mean).square().mean().sqrt()
    model = LogisticRegression(C=1 / (600 * 1e-2), tol=1e-10, max_iter=20000, solver="newton-cg")
    model.fit(((train - mean) / scale).numpy(), 3 * y.numpy())
    scores = torch.from_numpy(model.decision_function(((test - mean) / scale).numpy()))
    values, order = scores.topk(6, dim=1)
    clear = (values.diff(dim=1) < -0.01).all(1)
    assert clear.sum() > 70
    assert torch.equal(result.best[clear], 3 * order[clear, :5])


def test_up_to_five_classes_have_no_top5_and_a_rare_class_counts_as_much_as_another():
    """Class 0 is separate, class 1 lies on a third of class 2."""
    x = torch.tensor([[9.0, 0], [0, 1], [0, 1], [0, 9], [0, 9]]).repeat(20, 1)
    y = torch.tensor([0, 2, 1, 2, 2]).repeat(20)
    x_test, y_test = x[y != 1].repeat(2, 1), y[y != 1].repeat(2)
    both = torch.cat([x_test, torch.tensor([[0.0, 9.0]])]), torch.cat([y_test, torch.tensor([1])])
    top1, per_class = linear("z", features(x, y), features(*both), seed=0)
    assert per_class.key == "linear_per_class/z"
    right = torch.tensor([present(top1.each)[both[1] == label].mean() for label in range(3)])
    assert right[0] == 1
    assert right[1] == 0
    assert per_class.value == pytest.approx(right.mean().item())
    assert per_class.value < 0.7 < top1.value


def test_planted_a_factor_in_h_that_z_lacks_reads_one_and_chance():
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(4, (2400,), generator=generator)
    noise = torch.randn(2400, 16, generator=generator)
    h = torch.cat([noise, 8 * torch.eye(4)[y]], 1)
    (in_h, _), (in_z, _) = (
        linear(tap, features(x[:1200], y[:1200]), features(x[1200:], y[1200:]), seed=0)
        for tap, x in (("h", h), ("z", noise))
    )
    assert in_h.value == 1
    assert abs(in_z.value - 0.25) < 4 * (0.25 * 0.75 / 1200) ** 0.5


def test_a_fraction_is_balanced_drawn_by_the_seed_and_named_in_percent():
    train, y = table(450, classes=3)
    test, y_test = table(400, seed=1, classes=3)
    pair = features(train, y), features(test, y_test)
    all_of_them, *_ = linear("h", *pair, seed=0)
    few, per_class = linear("h", *pair, seed=0, fraction=0.1)
    assert (few.key, per_class.key) == ("linear_10/h", "linear_10_per_class/h")
    assert few.settings["labels"] == 45
    again, *_ = linear("h", *pair, seed=0, fraction=0.1)
    other, *_ = linear("h", *pair, seed=1, fraction=0.1)
    assert torch.equal(present(few.each), present(again.each))
    assert not torch.equal(present(few.each), present(other.each))
    assert 0.5 < few.value < all_of_them.value
    (fewest, *_) = linear("h", *pair, seed=0, fraction=0.001)
    assert fewest.key == "linear_0.1/h"
    assert fewest.settings["labels"] == 6


@given(
    sizes=st.lists(st.integers(2, 40), min_size=2, max_size=6),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31),
)
def test_a_fraction_takes_the_same_of_every_class_but_for_those_that_run_out(sizes, fraction, seed):
    y = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    rows = balanced_fraction(y, fraction, seed, at_least=2)
    counts = y[rows].bincount(minlength=len(sizes))
    share = max(round(fraction * len(y) / len(sizes)), 2)
    assert counts.tolist() == [min(share, size) for size in sizes]
    assert len(rows.unique()) == len(rows)


def test_a_fraction_out_of_range_is_an_error():
    x, y = table(40)
    for fraction in (0.0, 1.5):
        with pytest.raises(UserError, match="fraction must lie above 0, at most 1"):
            list(linear("h", features(x, y), features(x, y), seed=0, fraction=fraction))
