import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from narrow import present
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.neighbors import kneighbors_graph

from headwise.errors import UserError
from headwise.evaluation.protocols import cluster as module
from headwise.evaluation.protocols.cluster import (
    ari,
    assign,
    cluster,
    contingency,
    nmi,
    spectral_axes,
)
from headwise.features.extract import Features

NAMES = [
    f"{protocol}{metric}/h"
    for protocol in ("cluster", "cluster_spectral")
    for metric in ("", "_nmi", "_ari")
]


def features(vectors, labels):
    return Features(vectors, labels, torch.arange(len(vectors)))


def values(vectors, labels, **settings):
    test = features(vectors, labels)
    return {value.key: value for value in cluster("h", test, test, **{"seed": 0} | settings)}


def blobs(n: int, classes: int, spread: float, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    centres = torch.linalg.qr(torch.randn(16, classes, generator=generator)).Q.T
    return centres[y] + spread * torch.randn(n, 16, generator=generator), y


counts = arrays(
    np.int64, st.tuples(st.integers(2, 5), st.integers(2, 5)), elements=st.integers(0, 9)
)


@given(table=counts)
def test_nmi_and_ari_are_scikit_learns(table):
    table[0, 0] += 1
    table[1, 1] += 1
    found, y = (np.repeat(place.ravel(), table.ravel()) for place in np.indices(table.shape))
    np.testing.assert_array_equal(contingency(found, y, table.shape), table)
    assert nmi(table) == pytest.approx(normalized_mutual_info_score(y, found), abs=1e-9)
    assert ari(table) == pytest.approx(adjusted_rand_score(y, found), abs=1e-9)


@given(table=counts)
def test_the_assignment_is_the_best_of_all(table):
    k, c = table.shape
    found = assign(table)
    assert sorted(found[found >= 0]) == sorted(set(found[found >= 0])), "no class twice"
    assert (found >= 0).sum() == min(k, c)
    few = table if k <= c else table.T
    best = max(
        sum(few[i, j] for i, j in enumerate(choice))
        for choice in itertools.permutations(range(few.shape[1]), len(few))
    )
    assert table[found >= 0, found[found >= 0]].sum() == best


def test_planted_blobs_read_one_whatever_their_names_and_lengths():
    x, y = blobs(300, 6, 0.02)
    lengths = torch.linspace(0.1, 10, 300)[:, None]
    found = values(x * lengths, 7 * y + 3)
    assert list(found) == NAMES
    for value in found.values():
        assert value.value == pytest.approx(1.0)
        assert value.n == 300
        assert value.settings["clusters"] == 6
    assert present(found["cluster/h"].each).tolist() == [1.0] * 300
    assert found["cluster_nmi/h"].interval == pytest.approx((1.0, 1.0))


def test_noise_is_at_the_chance_that_is_given(monkeypatch):
    monkeypatch.setattr(module, "SPECTRAL_ROWS", 0)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(1000, 8, generator=generator), torch.arange(1000) % 4
    found = values(x, y)
    for metric, within in ("", 0.05), ("_nmi", 0.01), ("_ari", 0.01):
        value = found[f"cluster{metric}/h"]
        assert value.value == pytest.approx(value.chance, abs=within)
    assert 0.25 < present(found["cluster/h"].chance) < 0.32
    assert present(found["cluster_nmi/h"].chance) > 0, "a finite sample's is not zero"


def test_k_means_is_scikit_learns_on_normalised_rows():
    x, y = blobs(400, 5, 0.25)
    unit = torch.nn.functional.normalize(x, dim=1).numpy()
    oracle = KMeans(5, n_init=50, random_state=1).fit_predict(unit)
    found = values(x, y)
    assert found["cluster_nmi/h"].value == pytest.approx(
        normalized_mutual_info_score(y, oracle), abs=0.02
    )
    table = contingency(oracle, y.numpy(), (5, 5))
    rows, columns = linear_sum_assignment(-table)
    assert found["cluster/h"].value == pytest.approx(table[rows, columns].sum() / 400, abs=0.02)


def test_spectral_finds_rings_that_k_means_cuts():
    """Two cones about one axis: directions on two rings, one around the other."""
    angle = torch.linspace(0, 2 * torch.pi, 301)[:-1]
    y = torch.arange(300) % 2
    radius = torch.tensor([0.3, 1.0])[y]
    x = torch.stack([radius * angle.cos(), radius * angle.sin(), torch.ones(300)], 1)
    found = values(x, y)
    assert found["cluster_spectral/h"].value == 1
    assert found["cluster_spectral_nmi/h"].value == pytest.approx(1)
    assert found["cluster/h"].value < 0.8


def test_spectral_agrees_with_scikit_learn():
    x, y = blobs(300, 4, 0.22)
    graph: Any = kneighbors_graph(x.numpy(), 10, metric="cosine", include_self=False)
    oracle = SpectralClustering(4, affinity="precomputed", random_state=0)
    oracle.fit(0.5 * (graph + graph.T))
    axes = spectral_axes(x, 4)
    np.testing.assert_allclose(np.linalg.norm(axes, axis=1), 1)
    ours = KMeans(4, n_init=10, random_state=0).fit_predict(axes)
    assert adjusted_rand_score(oracle.labels_, ours) > 0.95
    assert values(x, y)["cluster_spectral_ari/h"].value == pytest.approx(
        adjusted_rand_score(y, oracle.labels_), abs=0.03
    )


def test_large_sets_are_not_clustered_spectrally(monkeypatch):
    monkeypatch.setattr(module, "SPECTRAL_ROWS", 99)
    assert list(values(*blobs(100, 4, 0.1))) == NAMES[:3]


def test_intervals_are_those_of_resampled_images(monkeypatch):
    monkeypatch.setattr(module, "SPECTRAL_ROWS", 0)
    x, y = blobs(500, 4, 0.35)
    kept = []
    k_means = module.k_means
    monkeypatch.setattr(module, "k_means", lambda *a: kept.append(k_means(*a)) or kept[0])
    found = values(x, y)
    rows = np.random.default_rng(1).integers(500, size=(500, 500))
    for metric, oracle in ("nmi", normalized_mutual_info_score), ("ari", adjusted_rand_score):
        spread = 1.96 * np.std([oracle(y.numpy()[row], kept[0][row]) for row in rows])
        value = found[f"cluster_{metric}/h"]
        expected = (value.value - spread, value.value + spread)
        assert value.interval == pytest.approx(expected, abs=0.15 * spread)


def test_the_seed_is_the_only_chance_and_more_clusters_than_classes_count_as_wrong():
    x, y = blobs(200, 4, 0.3)
    first, again = values(x, y), values(x, y)
    assert torch.equal(present(first["cluster/h"].each), present(again["cluster/h"].each))
    assert first["cluster_nmi/h"].interval == again["cluster_nmi/h"].interval
    x, y = blobs(200, 4, 0.02)
    assert values(x, y, clusters=8)["cluster/h"].value < 0.9
    assert values(x, y, clusters=2)["cluster/h"].value == 0.5


def test_collapsed_features_are_scored_as_one_cluster():
    found = values(torch.ones(60, 4), torch.arange(60) % 3)
    assert found["cluster/h"].value == pytest.approx(1 / 3)
    assert found["cluster_nmi/h"].value == pytest.approx(0, abs=1e-9)
    assert found["cluster_ari/h"].value == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"clusters": 31}, r"must lie in 2\.\.30, the number of test images; got 31"),
        ({"clusters": 1}, "got 1"),
        ({"labels": torch.zeros(30).long()}, "at least 2 classes; got 1"),
        ({"vectors": torch.full((30, 16), torch.nan)}, "features must be finite"),
    ],
)
def test_errors_name_what_must_hold(change, words):
    x, y = blobs(30, 3, 0.1)
    with pytest.raises(UserError, match=words):
        values(**{"vectors": x, "labels": y} | change)
