"""Labels by stated rules: a missing label is no class, and an identity is no label."""

import csv
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from narrow import labels_of, present
from sources import png, write_folder

from headwise.data import DataConfig, open_images, write_skipped
from headwise.data.split import balanced_fraction, labelled_splits, stratified_split
from headwise.errors import UserError
from headwise.files import csv_text


def table(path, labels, name="label", n=None, kind=None, **more):
    n = len(labels) if n is None else n
    columns = {"image": [png(i) for i in range(n)]}
    if labels is not None:
        columns[name] = pa.array(labels, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**columns, **more}), path)
    return path


def opened(path, **settings):
    return open_images(DataConfig(spec=str(path), test_fraction=0.0, **settings)).train


def error_of(path, **settings) -> str:
    with pytest.raises(UserError) as caught:
        opened(path, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("labels", "expected", "classes"),
    [
        ([0, None, 1, 0], [0, -1, 1, 0], ("0", "1")),
        ([0, -1, 1, 0], [0, -1, 1, 0], ("0", "1")),
        (["b", None, "a", ""], [1, -1, 0, -1], ("a", "b")),
        ([1.0, float("nan"), 0.0, None], [1, -1, 0, -1], ("0", "1")),
        ([True, False, None, True], [1, 0, -1, 1], ("False", "True")),
        ([-1, 1, 1, -1], [0, 1, 1, 0], ("-1", "1")),
        ([[0], [1, 0], None, []], [0, 1, -1, -1], ("0", "0+1")),
        ([["cat"], ["dog", "cat"], ["cat"], None], [0, 1, 0, -1], ("cat", "cat+dog")),
    ],
)
def test_missing_is_missing_and_several_are_a_set(tmp_path, labels, expected, classes):
    train = opened(table(tmp_path / "a.parquet", labels))
    assert labels_of(train).tolist() == expected
    assert train.classes == classes


@pytest.mark.parametrize("labels", [[None] * 3, [-1] * 3, ["", None, ""], [[], None, []]])
def test_no_label_at_all(tmp_path, labels):
    assert opened(table(tmp_path / "a.parquet", labels)).labels is None


def test_categories_of_pandas(tmp_path):
    path = table(tmp_path / "a.parquet", pa.array(["b", "a"]).dictionary_encode())
    assert opened(path).classes == ("a", "b")


@pytest.mark.parametrize("bare", ["a", "b"])
def test_a_shard_without_the_column_keeps_the_labels_of_the_others(tmp_path, bare):
    for name in "ab":
        table(tmp_path / f"{name}.parquet", None if name == bare else [1, 0, 1], n=3)
    expected = [-1] * 3 + [1, 0, 1] if bare == "a" else [1, 0, 1] + [-1] * 3
    assert labels_of(opened(tmp_path)).tolist() == expected


def test_types_that_differ_are_one_line(tmp_path):
    table(tmp_path / "a.parquet", [0, 1])
    table(tmp_path / "b.parquet", ["cat", "dog"])
    message = error_of(tmp_path)
    assert "numbers in a.parquet and strings in b.parquet" in message
    table(tmp_path / "b.parquet", [None, None], kind=pa.string())
    assert labels_of(opened(tmp_path)).tolist() == [0, 1, -1, -1]


@pytest.mark.parametrize(
    "labels", [[0.5, 1.5], [{"a": 1}, {"a": 2}], [b"x", b"y"]], ids=["floats", "structs", "bytes"]
)
def test_other_types_name_file_and_column(tmp_path, labels):
    path = table(tmp_path / "a.parquet", labels)
    message = error_of(path, image_column="image")
    assert "a.parquet" in message
    assert "'label'" in message


@pytest.mark.parametrize("name", ["id", "__index_level_0__"])
def test_an_identity_is_no_label(tmp_path, name, caplog):
    path = table(tmp_path / "a.parquet", list(range(10)), name)
    assert opened(path).labels is None
    assert name.startswith("__") or "'id' has another value in every row" in caplog.text
    assert labels_of(opened(path, label_column=name)).tolist() == list(range(10))


def test_captions_are_no_labels(tmp_path):
    path = table(tmp_path / "a.parquet", [f"a photo of {i}" for i in range(12)])
    assert opened(path).labels is None


def test_labels_of_test_rows_may_be_missing(tmp_path):
    table(tmp_path / "train.parquet", [0, 1, -1, 1])
    table(tmp_path / "test.parquet", [1, -1])
    splits = open_images(str(tmp_path))
    assert labels_of(splits.test).tolist() == [1, -1]
    train, test = labelled_splits(splits)
    assert labels_of(train).tolist() == [0, 1, 1]
    assert labels_of(present(test)).tolist() == [1]


def test_npz_labels_may_be_missing(tmp_path):
    pixels = np.zeros((4, 3, 3), np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, labels=[2, -1, 0, 2], classes=["x", "y", "z"])
    train = opened(tmp_path / "a.npz")
    assert (labels_of(train).tolist(), train.classes) == ([1, -1, 0, 1], ("x", "z"))


def test_an_unlabelled_folder_among_classes_is_no_class(tmp_path):
    root = write_folder(tmp_path / "x", ["a/0.png", "b/0.png", "unlabeled/0.png"])
    train = opened(root)
    assert (labels_of(train).tolist(), train.classes) == ([0, 1, -1], ("a", "b"))


def test_draws_pass_over_missing_labels():
    labels = torch.tensor([-1, 0, 1, -1, 0, 1, 0, 1, -1])
    train, test = stratified_split(labels, 0.4, seed=0)
    assert (labels[test] >= 0).all()
    assert len(train) + len(test) == 9
    assert (labels[balanced_fraction(labels, 0.5, seed=0)] >= 0).all()
    known = labels[labels >= 0]
    chosen = balanced_fraction(labels, 0.5, seed=0)
    assert labels[chosen].tolist() == known[balanced_fraction(known, 0.5, seed=0)].tolist()


def test_backslashes_in_a_zip(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        for i, kind in enumerate(["cat", "cat", "dog"]):
            file.writestr(f"photos\\{kind}\\{i}.png", png(i))
    train = opened(path)
    assert list(train.ids) == ["photos/cat/0.png", "photos/cat/1.png", "photos/dog/2.png"]
    assert train.classes == ("cat", "dog")


def test_every_file_that_is_not_read_is_listed(tmp_path):
    root = write_folder(tmp_path / "x", ["a.png", "b.jfif", "c.HEIC", "d.avif", ".e.png", "f"])
    (root / "g.png").symlink_to(root / "nowhere")
    (root / "folder.png" / ".git").mkdir(parents=True)
    train = opened(root)
    assert list(train.ids) == ["a.png", "b.jfif"]
    expected = {
        ".e.png": "hidden",
        "c.HEIC": "ends in .heic",
        "d.avif": "ends in .avif",
        "f": "has no ending",
        "folder.png/.git": "hidden",
        "g.png": "a link to nothing",
    }
    assert dict(train.left_out) == expected
    write_skipped([train], tmp_path / "skipped.csv")
    with open(tmp_path / "skipped.csv", newline="") as file:
        assert dict(csv.reader(file)) == {"file": "reason", **expected}


def test_zip_members_that_are_not_read_are_listed(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a.png", png(0))
        file.writestr("notes.txt", "x")
        file.writestr("__MACOSX/a.png", "x")
    left_out = opened(tmp_path / "a.zip").left_out
    assert left_out == (("__MACOSX/a.png", "hidden"), ("notes.txt", "ends in .txt"))


def test_columns_that_apply_to_parquet_only_are_said(tmp_path, caplog):
    opened(write_folder(tmp_path / "x", ["a.png"]), image_column="image")
    assert "image_column image is not used" in caplog.text


def test_no_cell_of_a_table_is_a_formula():
    rows = [("=1+1", "@x", "+a", "-b", -0.5, "-0.5", "\tx", "a=b")]
    line = csv_text(["=c", *"abcdefg"], rows).splitlines()
    assert line[0].startswith("'=c,")
    assert line[1] == "'=1+1,'@x,'+a,'-b,-0.5,-0.5,'\tx,a=b"
