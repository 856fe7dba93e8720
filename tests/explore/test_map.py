import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from headwise.explore import map as maps
from headwise.explore import page
from headwise.explore.table import read_table
from headwise.explore.thumbnails import near_first

H = np.random.default_rng(0).standard_normal((60, 6)).astype(np.float32)
H[:30] += 6


def written(path):
    columns = {"path": [f"{i}.png" for i in range(60)], "h": H.tolist(), "note": ["a"] * 60}
    table = pa.table(columns).replace_schema_metadata({"headwise": json.dumps({"run": "r"})})
    pq.write_table(table, path)
    return path


def test_the_map_is_made_once_and_stays_in_the_table(tmp_path, monkeypatch):
    path = written(tmp_path / "a.parquet")
    points, how = page.mapped(read_table(path), seed=0)
    assert how.startswith("t-SNE of h")
    again = written(tmp_path / "b.parquet")
    assert np.array_equal(page.mapped(read_table(again), seed=0)[0], points)
    apart = np.linalg.norm(points[:30].mean(0) - points[30:].mean(0))
    assert apart > points[:30].std(0).max()
    whole = pq.read_table(path)
    assert whole.column_names == ["path", "h", "note", "x", "y"]
    assert whole.column("h").to_pylist() == H.tolist()
    assert json.loads(whole.schema.metadata[b"headwise"]) == {"run": "r", "map": how}
    monkeypatch.setattr(maps, "two_dimensions", None)
    found, said = page.mapped(read_table(path), seed=0)
    assert said == how
    np.testing.assert_array_equal(found, points)


def test_images_beyond_the_landmarks_lie_among_the_most_similar_ones(monkeypatch):
    monkeypatch.setattr(maps, "LANDMARKS", 40)
    points = maps.two_dimensions(torch.from_numpy(H))
    unit = H / np.linalg.norm(H, axis=1, keepdims=True)
    order = torch.randperm(60, generator=maps.rng.generator(0, "landmarks")).numpy()
    placed, rest = np.sort(order[:40]), order[40:]
    for row in rest:
        similar = unit[placed] @ unit[row]
        near = np.argsort(-similar)[:5]
        weights = np.exp(30 * (similar[near] - similar[near].max()))
        mean = (points[placed[near]] * weights[:, None]).sum(0) / weights.sum()
        np.testing.assert_allclose(points[row], mean, rtol=1e-3, atol=1e-3)
    assert "40 of the 60 images" in maps.how_mapped(60)


def test_few_images_have_a_map_too():
    for n in (1, 2, 3, 4, 6):
        assert np.isfinite(maps.two_dimensions(torch.from_numpy(H[:n]))).all()


def test_a_table_of_arrays_keeps_its_map(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, h=H)
    points, _ = page.mapped(read_table(path), seed=0)
    with np.load(path) as file:
        assert sorted(file.files) == ["h", "x", "y"]
        np.testing.assert_array_equal(file["x"], points[:, 0])


def test_points_close_together_are_close_in_the_order_of_sheets():
    points = np.random.default_rng(0).uniform(0, 1, (2000, 2))
    ordered = points[near_first(points)]
    steps = np.linalg.norm(np.diff(ordered, axis=0), axis=1)
    assert sorted(near_first(points)) == [*range(2000)]
    assert steps.mean() < 0.06
