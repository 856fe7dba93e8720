import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from headwise.errors import UserError
from headwise.explore.neighbours import neighbours
from headwise.explore.table import read_table

VECTORS = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)


def fixed(vectors: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])


@pytest.mark.parametrize("kind", ["fixed", "list", "double", "npz"])
def test_a_table_made_elsewhere_is_read(tmp_path, kind):
    path = tmp_path / ("a.npz" if kind == "npz" else "a.parquet")
    names = [f"{i}.png" for i in range(40)]
    labels = ["b", "a", None, "b"] * 10
    if kind == "npz":
        np.savez(path, h=VECTORS, path=names, label=[label or "" for label in labels])
    else:
        value = pa.float64() if kind == "double" else pa.float32()
        h = fixed(VECTORS) if kind == "fixed" else pa.array(VECTORS.tolist(), pa.list_(value))
        image = pa.array([{"bytes": b"x", "path": name} for name in names])
        columns = {"path": names, "label": labels, "h": h, "image": image, "size": [0.5] * 40}
        pq.write_table(pa.table(columns), path, row_group_size=7)
    table = read_table(path)
    assert torch.equal(table.h, torch.from_numpy(VECTORS))
    assert table.names.tolist() == names
    assert table.row("3.png") == 3
    assert [table.label(i) for i in range(4)] == ["b", "a", "", "b"]
    assert table.split.tolist() == [""] * 40
    assert "image" not in table.columns
    if kind != "npz":
        assert table.columns["size"].dtype == np.float64


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"z": fixed(VECTORS), "path": ["a"] * 40}, "must have a column h .* it has z, path; make"),
        ({"h": [[1.0, 2.0], [1.0]]}, "vectors of one length in h; got 2 and 1 numbers"),
        ({"h": [[1.0, 2.0], None]}, "vectors of one length in h; got 2 and none numbers"),
        ({"h": [[1.0, 2.0], [1.0, float("nan")]]}, "finite vectors; h has NaN .* first in row 1"),
        ({"h": pa.array([], pa.list_(pa.float32()))}, "must have rows; it has none"),
        ({"h": ["a", "b"]}, "must have a column h .* it has h; make"),
    ],
    ids=["no h", "unequal", "missing", "nan", "empty", "text"],
)
def test_a_table_that_will_not_do_is_refused(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=message):
        read_table(tmp_path / "a.parquet")


def test_neighbours_are_those_of_scikit_learn():
    bank, queries = torch.from_numpy(VECTORS), torch.from_numpy(VECTORS[:5] + 0.1)
    index, similarities = neighbours(queries, bank, 4)
    distances, expected = NearestNeighbors(metric="cosine").fit(VECTORS).kneighbors(queries, 4)
    assert index.tolist() == expected.tolist()
    np.testing.assert_allclose(similarities, 1 - distances, atol=1e-6)
    index, _ = neighbours(bank, bank, 3, other=True)
    expected = NearestNeighbors(n_neighbors=3, metric="cosine").fit(VECTORS).kneighbors()[1]
    assert index.tolist() == expected.tolist()
    with pytest.raises(UserError, match=r"1\.\.39.*got 40"):
        neighbours(bank, bank, 40, other=True)
