"""The geometry of rows at every tap: closed forms, plain loops, and what labels cannot change."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from planted_fusion import IMAGES, coded_batches, planted_head
from sklearn.metrics import silhouette_samples

from headwise.fusion.batches import EncodedBatch
from headwise.fusion.geometry import (
    MEASURES,
    head_geometry,
    nearest_neighbours,
    permuted_nn1,
    row_geometry,
    tap_names,
)
from headwise.fusion.pictures import (
    path_taps,
    pictured_images,
    pictures,
    principal_path,
    weights_between,
)
from headwise.heads import HeadConfig, build_head


def noisy(n: int = 24, classes: int = 3, width: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % classes
    centres = torch.randn(classes, width, generator=generator)
    rows = centres[labels].repeat(2, 1) + torch.randn(2 * n, width, generator=generator)
    return rows, labels


def test_one_point_a_class():
    labels = torch.arange(12) % 3
    rows = F.one_hot(labels, 4).repeat(2, 1).float()
    found = row_geometry(rows, labels, seed=0)
    for name in ("nn1", "between", "silhouette", "cluster_accuracy"):
        assert found[name] == pytest.approx(1, abs=1e-6), name
    assert found["within"] == pytest.approx(0, abs=1e-6)
    assert found["rank"] == pytest.approx(3, abs=1e-5)
    assert found["alignment"] == 0
    # Of the pairs of first views a share of 18/66 are of one class; the others are at √2.
    assert found["uniformity"] == pytest.approx(math.log((18 + 48 * math.exp(-4)) / 66), abs=1e-6)


def test_plain_loops():
    rows, labels = noisy()
    found = row_geometry(rows, labels, seed=0)
    assert list(found) == list(MEASURES)
    x = F.normalize(rows[:24], dim=1).double().numpy()
    y = labels.numpy()
    right = []
    for i in range(24):
        others = [j for j in range(24) if j != i]
        right.append(y[max(others, key=lambda j: x[i] @ x[j])] == y[i])
    assert found["nn1"] == pytest.approx(np.mean(right))
    means = np.stack([x[y == c].mean(0) for c in range(3)])
    within = ((x - means[y]) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
    assert found["within"] == pytest.approx(within, abs=1e-6)
    assert found["within"] + found["between"] == pytest.approx(1)
    distances = np.clip(1 - x @ x.T, 0, 2)
    np.fill_diagonal(distances, 0)
    silhouette = silhouette_samples(distances, y, metric="precomputed").mean()
    assert found["silhouette"] == pytest.approx(silhouette, abs=1e-6)
    twins = F.normalize(rows[24:], dim=1).double().numpy()
    assert found["alignment"] == pytest.approx(((x - twins) ** 2).sum(1).mean(), abs=1e-6)


def test_a_twin_is_no_neighbour():
    rows, labels = noisy()
    rows[24:] = rows[:24]
    alone = row_geometry(torch.cat([rows[:24], torch.randn(24, 5)]), labels, seed=0)
    found = row_geometry(rows, labels, seed=0)
    for name in MEASURES:
        if name != "alignment":
            assert found[name] == alone[name], name
    assert (nearest_neighbours(rows[:24]) != torch.arange(24)).all()


def test_every_image_a_class_has_no_silhouette():
    found = row_geometry(torch.randn(12, 4), torch.arange(6), seed=0)
    assert math.isnan(found["silhouette"])
    assert found["nn1"] == 0


def test_one_order_of_images_is_as_good_as_another():
    rows, labels = noisy()
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    found = row_geometry(rows, labels, seed=0)
    other = row_geometry(rows[torch.cat([order, order + 24])], labels[order], seed=0)
    for name in ("nn1", "within", "silhouette", "rank", "alignment", "uniformity"):
        assert found[name] == pytest.approx(other[name], abs=1e-5), name


def test_taps_of_a_head():
    rows, labels = noisy()
    batch = EncodedBatch(rows, labels)
    head = build_head(HeadConfig(name="mlp", depth=2, width=6, output_size=4), 5).eval()
    assert tap_names(head) == ("h", "g1", "z")
    found = head_geometry(head, batch, seed=0)
    z = row_geometry(head(rows).detach(), labels, seed=0)
    for name in MEASURES:
        assert found[name].shape == (3,)
        assert found[name][2] == pytest.approx(z[name], abs=1e-6)
    null = permuted_nn1(head, batch, 40, seed=0)
    assert null.shape == (3, 40)
    assert null[0].mean() == pytest.approx(7 / 23, abs=0.1), "chance: the others of one's class"
    assert not pictures(head, batch)


def test_images_in_a_picture():
    labels = torch.randint(20, (400,), generator=torch.Generator().manual_seed(0))
    images = pictured_images(labels)
    counts = labels[images].unique(return_counts=True)[1]
    assert len(images) == len(images.unique()) == 64
    assert len(counts) == 10
    assert counts.max() - counts.min() <= 1
    assert labels[images].equal(labels[images].sort().values)
    assert len(pictured_images(labels[:7])) == 7


@pytest.mark.parametrize("context", ["joint", "per-view", "self", "halves"])
def test_maps_and_path(context):
    batch = coded_batches(1)[0]
    head = planted_head("class", "uniform", context=context)
    found = pictures(head, batch)
    rows = 2 * IMAGES
    assert found["maps"].shape == (2, 2, rows, rows)
    assert found["path"].shape == (3, rows, 2)
    assert found["path_taps"].tolist() == list(path_taps(head)) == ["g1", "g2", "g3"]
    # All images are shown, so that rows sum to 1, and blocks of one class hold all of it.
    np.testing.assert_allclose(found["maps"].astype(float).sum(-1), 1, atol=1e-2)
    y = found["map_labels"]
    of_class = found["maps"][:, 0].astype(float) * (y[:, None] == y)
    if context != "halves":  # there a class may not be in sight
        np.testing.assert_allclose(of_class.sum(-1), 1, atol=1e-2)
    np.testing.assert_allclose(found["path"][0], found["path"][2], atol=1e-6)


def test_weights_among_rows_of_sequences():
    weights = torch.rand(2, 3, 4, 4)
    rows = torch.tensor([0, 3, 5, 6])
    found = weights_between(weights, rows)
    whole = torch.zeros(3, 8, 8)
    for s in range(2):
        whole[:, 4 * s : 4 * s + 4, 4 * s : 4 * s + 4] = weights[s]
    assert found.equal(whole[:, rows][:, :, rows])


def test_path_keeps_what_a_plane_can():
    angle = torch.linspace(0, 3, 30)
    plane = torch.stack([angle.cos(), angle.sin()], 1) @ torch.linalg.qr(torch.randn(6, 2))[0].T
    path = principal_path(plane.reshape(3, 10, 6))
    points = torch.from_numpy(path.reshape(30, 2))
    assert torch.cdist(points, points).allclose(torch.cdist(plane, plane), atol=1e-3)
