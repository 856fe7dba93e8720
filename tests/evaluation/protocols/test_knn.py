import numpy as np
import pytest
import torch
from narrow import present
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from torch.overrides import TorchFunctionMode

from headwise.errors import UserError
from headwise.evaluation.protocols import knn
from headwise.features.extract import Features


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


@pytest.mark.parametrize("columns", [7, 64, 1000])
def test_blocks_autocast_scale_and_integer_type_change_nothing(monkeypatch, columns):
    train, labels, test, _ = tables(3)
    whole = knn.knn_predict(train, labels, test, k=10, temperature=0.1, num_classes=5)
    monkeypatch.setattr(knn, "_BLOCK_ELEMENTS", 13 * columns)
    monkeypatch.setattr(knn, "_BLOCK_COLUMNS", columns)
    with torch.autocast("cpu", torch.bfloat16):
        blocks = knn.knn_predict(
            train * 64, labels.int(), test / 64, k=10, temperature=0.1, num_classes=9
        )
    assert torch.equal(whole, blocks)


class Largest(TorchFunctionMode):
    """The number of elements of the largest tensor that was made."""

    elements = 0

    def __init__(self, *tables):
        super().__init__()
        self.known = {table.data_ptr() for table in tables}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if not isinstance(tensor, torch.Tensor):
                continue
            if tensor.untyped_storage().data_ptr() not in self.known:
                self.elements = max(self.elements, tensor.numel())
        return made


def test_memory_stays_bounded(monkeypatch):
    """Beyond the tables: a block, and a number for each row. No copy of the training table."""
    train, labels, test, _ = tables(4, n=2000, m=100, p=8)
    monkeypatch.setattr(knn, "_BLOCK_ELEMENTS", 2500)
    monkeypatch.setattr(knn, "_BLOCK_COLUMNS", 100)
    with Largest(train, labels, test) as largest:
        knn.knn_predict(train, labels, test, k=3, temperature=None, num_classes=5)
    assert 2000 <= largest.elements <= 2500


@pytest.mark.parametrize("columns", [33, 1000])
def test_the_nearest_others_are_scikit_learns(monkeypatch, columns):
    train, _, test, _ = tables(5)
    monkeypatch.setattr(knn, "_BLOCK_ELEMENTS", 50 * columns)
    monkeypatch.setattr(knn, "_BLOCK_COLUMNS", columns)
    model = NearestNeighbors(n_neighbors=4, metric="cosine").fit(train.double().numpy())
    for asked, itself in (test, False), (train, True):
        rows = None if itself else asked.double().numpy()
        distances, places = model.kneighbors(rows)
        found = knn.nearest_rows(train, asked, 4, leave_one_out=itself)
        similarities, index = (torch.cat(parts) for parts in zip(*found, strict=True))
        np.testing.assert_array_equal(index, places)
        np.testing.assert_allclose(similarities, 1 - distances, atol=1e-6)


def features(vectors, labels):
    return Features(vectors, labels, torch.arange(len(vectors)))


def test_the_protocols_are_the_papers():
    train, labels, test, test_labels = tables(6)
    pair = features(train, labels), features(test, test_labels)
    for protocol, k, temperature in (knn.knn, 10, None), (knn.knn_weighted, 200, 0.1):
        value, balanced = protocol("h", *pair, num_classes=5)
        assert value.key == f"{protocol.__name__}/h"
        assert balanced.key == f"{protocol.__name__}_per_class/h"
        right = knn.knn_predict(
            train, labels, test, k=k, temperature=temperature, num_classes=5
        ).eq(test_labels)
        assert torch.equal(present(value.each), right.double())
        assert value.value == right.double().mean().item()
        commonest = labels.bincount().argmax()
        chance = (test_labels == commonest).double().mean().item()
        expected = {"k": k} | ({"temperature": temperature} if temperature else {})
        assert value.settings == expected
        assert value.chance == chance
        recalls = [right[test_labels == c].double().mean().item() for c in range(5)]
        assert balanced.value == pytest.approx(np.mean(recalls))
        assert (balanced.chance, balanced.settings) == (1 / 5, expected)
    few = features(train[:40], labels[:40])
    value, _ = knn.knn_weighted("z", few, pair[1], num_classes=5)
    assert value.settings["k"] == 40


def test_planted_twins_are_found_inside_the_test_set_alone():
    """Every image has one near twin; the training features have no say."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 16, generator=generator).repeat(2, 1)
    x += 0.01 * torch.randn(100, 16, generator=generator)
    train = features(x[:0], torch.zeros(0).long())
    same, other = torch.arange(50).repeat(2) % 5, torch.arange(100) // 50
    value, _ = knn.knn_self("h", train, features(x, same))
    assert (value.key, value.value, value.n) == ("knn_self/h", 1.0, 100)
    assert (value.settings, value.chance) == ({"k": 1}, 0.2)
    value, _ = knn.knn_self("h", train, features(x, other))
    assert value.value == 0.0


def test_a_probe_of_noise_is_at_chance():
    train, labels, test, test_labels = tables(7, n=2000, m=2000)
    generator = torch.Generator().manual_seed(1)
    shuffled = labels[torch.randperm(2000, generator=generator)]
    value, _ = knn.knn("h", features(train, shuffled), features(test, test_labels), num_classes=5)
    assert abs(value.value - 0.2) < 4 * (0.2 * 0.8 / 2000) ** 0.5


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


def test_labels_that_cannot_be_probed_are_errors():
    train, labels, test, test_labels = tables()
    one = features(test, torch.ones(120).long())
    with pytest.raises(UserError, match="knn/z needs images of at least 2 classes; got 1"):
        list(knn.knn("z", features(train, torch.ones(300).long()), one, num_classes=5))
    with pytest.raises(UserError, match="knn_self/z needs images of at least 2 classes; got 1"):
        list(knn.knn_self("z", features(train, labels), one))
    unseen = features(test, test_labels.index_fill(0, torch.tensor(0), 7))
    with pytest.raises(UserError, match="got class 7 in the test split only"):
        list(knn.knn_weighted("z", features(train, labels), unseen, num_classes=8))
