"""Splits and limits: disjoint, covering, balanced, deterministic."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headwise.data.names import as_names
from headwise.data.split import balanced_limit, split_by_name, stratified_split

labels_of = st.lists(st.integers(0, 5), min_size=1, max_size=60).map(torch.tensor)
fractions = st.floats(0.01, 0.95)
seeds = st.integers(0, 2**32)


@given(labels_of, fractions, seeds)
def test_split_is_disjoint_and_covering_and_ascending(labels, fraction, seed):
    train, test = stratified_split(labels, fraction, seed)
    assert sorted(train.tolist() + test.tolist()) == list(range(len(labels)))
    for side in (train, test):
        assert side.tolist() == sorted(side.tolist())


@given(labels_of, fractions, seeds)
def test_split_keeps_every_class_on_both_sides(labels, fraction, seed):
    test = stratified_split(labels, fraction, seed)[1]
    for label in labels.unique():
        n, n_test = int((labels == label).sum()), int((labels[test] == label).sum())
        if n == 1:
            assert n_test == 0
        else:
            assert 1 <= n_test <= n - 1
            assert abs(n_test - n * fraction) <= 1


@given(labels_of, fractions, seeds)
def test_split_is_deterministic(labels, fraction, seed):
    torch.manual_seed(0)
    first = stratified_split(labels, fraction, seed)
    torch.manual_seed(1)
    for a, b in zip(first, stratified_split(labels, fraction, seed), strict=True):
        assert torch.equal(a, b)


@given(labels_of, fractions, seeds)
def test_split_of_a_class_does_not_depend_on_the_others(labels, fraction, seed):
    alone = (labels == labels[0]).nonzero().flatten()
    test = stratified_split(labels, fraction, seed)[1]
    expected = alone[stratified_split(labels[alone], fraction, seed)[1]]
    assert torch.equal(test[labels[test] == labels[0]], expected)


def drawn(paths, seed=0, fraction=0.2):
    """The names of the test images, drawn by name; the folder is the class."""
    classes = sorted({path.split("/")[-2] for path in paths})
    labels = torch.tensor([classes.index(path.split("/")[-2]) for path in paths])
    train, test = split_by_name(labels, as_names(paths), fraction, seed)
    assert sorted(train.tolist() + test.tolist()) == list(range(len(paths)))
    return {paths[i] for i in test}


MANY = [f"{name}/{i:04}.jpg" for name in ("cat", "dog") for i in range(1000)]


def test_a_split_by_name_is_close_to_the_fraction_in_every_class_and_follows_the_seed():
    for seed in range(3):
        test = drawn(MANY, seed)
        for name in ("cat", "dog"):
            assert 160 < sum(path.startswith(name) for path in test) < 240
    assert drawn(MANY, 0) != drawn(MANY, 1)
    # Pinned: another split would put images that a run has seen among its test images.
    assert sorted(drawn(MANY))[:3] == ["cat/0001.jpg", "cat/0021.jpg", "cat/0029.jpg"]


def test_an_image_more_or_less_moves_no_other():
    test = drawn(MANY)
    for i in range(0, 2000, 97):
        assert drawn(MANY[:i] + MANY[i + 1 :]) == test - {MANY[i]}
    more = sorted([*MANY, *(f"{name}/new-{i}.png" for name in ("cat", "cow") for i in range(9))])
    assert drawn(more) & {*MANY} == test
    assert {path.removeprefix("photos/") for path in drawn([f"photos/{p}" for p in MANY])} == test


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
def test_a_split_by_name_keeps_both_sides_of_small_classes(fraction):
    for n in range(2, 6):
        for seed in range(10):
            names = [f"{name}/{i}" for name in "ab" for i in range(n)]
            test = drawn(names, seed, fraction)
            assert {path[0] for path in test} == {path[0] for path in {*names} - test} == {*"ab"}
    assert drawn(["a/0", "b/0", "b/1"], 0, fraction) <= {"b/0", "b/1"}


def test_split_depends_on_the_seed():
    labels = torch.zeros(100, dtype=torch.int64)
    assert not torch.equal(stratified_split(labels, 0.5, 0)[1], stratified_split(labels, 0.5, 1)[1])


@given(labels_of, st.integers(1, 70))
def test_limit_takes_classes_in_turn(labels, limit):
    """Oracle: deal the images out in rounds, one of every class that has any left."""
    queues = [np.flatnonzero(labels.numpy() == label).tolist() for label in range(6)]
    dealt = []
    while any(queues):
        dealt += [queue.pop(0) for queue in queues if queue]
    assert balanced_limit(labels, limit).tolist() == sorted(dealt[:limit])


@pytest.mark.parametrize("limit", [10, 25, 99])
def test_limit_is_balanced(limit):
    labels = torch.arange(10).repeat_interleave(50)
    counts = labels[balanced_limit(labels, limit)].bincount(minlength=10)
    assert counts.max() - counts.min() <= 1
    assert counts.sum() == limit
