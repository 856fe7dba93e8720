import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from headwise.errors import UserError
from headwise.evaluation import knn


def tables(seed: int = 0, n: int = 300, m: int = 120, p: int = 16, classes: int = 5):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    test_labels = torch.randint(classes, (m,), generator=generator)
    centres = torch.randn(classes, p, generator=generator)
    train = centres[labels] + 1.5 * torch.randn(n, p, generator=generator)
    test = centres[test_labels] + 1.5 * torch.randn(m, p, generator=generator)
    return train, labels, test, test_labels


def scikit(train, labels, test, k, temperature):
    weights = "uniform" if temperature is None else lambda d: np.exp((1 - d) / temperature)
    model = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=weights)
    return model.fit(train.double().numpy(), labels.numpy())


@pytest.mark.parametrize("k", [1, 20, 200])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_weighted_votes_equal_scikit_learns(k, temperature):
    train, labels, test, _ = tables()
    found = knn.knn_predict(train, labels, test, k=k, temperature=temperature, num_classes=5)
    model = scikit(train, labels, test, k, temperature)
    assert found.tolist() == model.predict(test.double().numpy()).tolist()


@pytest.mark.parametrize("k", [1, 10, 51])
def test_plain_votes_equal_scikit_learns_where_no_vote_ties(k):
    train, labels, test, test_labels = tables(1)
    found = knn.knn_predict(train, labels, test, k=k, temperature=None, num_classes=5)
    shares = torch.tensor(scikit(train, labels, test, k, None).predict_proba(test.double().numpy()))
    best, second = shares.topk(2, dim=1).values.T
    clear = best - second > 1e-9
    assert clear.sum() > 90
    assert torch.equal(found[clear], shares.argmax(1)[clear])
    accuracy = knn.knn_accuracy(
        train, labels, test, test_labels, k=k, temperature=None, num_classes=5
    )
    assert accuracy == pytest.approx((found == test_labels).float().mean().item())


def test_a_tie_goes_to_the_nearer_class_and_nearness_never_beats_a_majority():
    test = torch.tensor([[1.0, 0.0]])
    near, far, opposite = [1.0, 0.1], [1.0, 0.5], [-1.0, 0.2]
    tie = torch.tensor([far, near])
    assert knn.knn_predict(
        tie, torch.tensor([0, 1]), test, k=2, temperature=None, num_classes=2
    ).tolist() == [1]
    majority = torch.tensor([near, opposite, opposite])
    labels = torch.tensor([0, 1, 1])
    assert knn.knn_predict(majority, labels, test, k=3, temperature=None, num_classes=2) == 1
    assert knn.knn_predict(majority, labels, test, k=3, temperature=0.1, num_classes=2) == 0


def test_a_tiny_temperature_neither_overflows_nor_underflows():
    train, labels, test, _ = tables(2)
    sharp = knn.knn_predict(train, labels, test, k=50, temperature=1e-5, num_classes=5)
    nearest = knn.knn_predict(train, labels, test, k=1, temperature=None, num_classes=5)
    assert torch.equal(sharp, nearest)


def test_blocks_autocast_scale_and_integer_type_change_nothing(monkeypatch):
    train, labels, test, _ = tables(3)
    whole = knn.knn_predict(train, labels, test, k=10, temperature=0.1, num_classes=5)
    monkeypatch.setattr(knn, "_BLOCK_ELEMENTS", 7 * len(train) + 1)
    with torch.autocast("cpu", torch.bfloat16):
        blocks = knn.knn_predict(
            train * 64, labels.int(), test / 64, k=10, temperature=0.1, num_classes=9
        )
    assert torch.equal(whole, blocks)


def test_memory_stays_bounded(monkeypatch):
    """No more than a block of similarities is ever asked for."""
    train, labels, test, _ = tables(4)
    monkeypatch.setattr(knn, "_BLOCK_ELEMENTS", 8 * len(train))
    sizes = []
    vote = knn._vote
    monkeypatch.setattr(knn, "_vote", lambda s, *rest: sizes.append(s.numel()) or vote(s, *rest))
    knn.knn_predict(train, labels, test, k=10, temperature=None, num_classes=5)
    assert max(sizes) <= 8 * len(train)
    assert sum(sizes) == len(train) * len(test)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k": 301}, "k must lie in 1..300"),
        ({"k": 0}, "k must lie in 1..300"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"num_classes": 4}, "labels must lie in 0..3"),
    ],
)
def test_errors_name_what_must_hold(change, words):
    train, labels, test, _ = tables()
    settings = {"k": 5, "temperature": None, "num_classes": 5} | change
    with pytest.raises(UserError, match=words):
        knn.knn_predict(train, labels, test, **settings)


def test_features_that_are_not_finite_and_no_test_rows_are_errors():
    train, labels, test, _ = tables()
    settings = {"k": 5, "temperature": None, "num_classes": 5}
    with pytest.raises(UserError, match="test features must be finite"):
        knn.knn_predict(train, labels, test.index_fill(0, torch.tensor(3), torch.nan), **settings)
    with pytest.raises(UserError, match="at least one test row"):
        knn.knn_accuracy(train, labels, test[:0], labels[:0], **settings)
