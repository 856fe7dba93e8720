"""Image parquet in the layouts that the Hugging Face hub serves."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from narrow import labels_of, present
from PIL import Image

from headwise.data import DataConfig, ImageFiles, open_images, parquet
from headwise.errors import UserError


def picture(seed: int, size: tuple[int, int] = (5, 6)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def struct_of(seeds: range) -> list[dict]:
    return [{"bytes": png(picture(seed)), "path": f"{seed}.png"} for seed in seeds]


def write(path, columns: dict, names: list[str] | None = None, rows_a_group: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if names is not None:
        label = {"names": names, "_type": "ClassLabel"}
        info = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, path, row_group_size=rows_a_group)


def check_pixels(images, seeds: list[int]) -> None:
    expected = np.stack([picture(seed) for seed in seeds])
    np.testing.assert_array_equal(images.pixels.permute(0, 2, 3, 1), expected)


@pytest.mark.parametrize("test_name", ["test", "validation"])
@pytest.mark.parametrize("folder", ["", "data/", "plain_text/"])
def test_shards_splits_and_class_names(tmp_path, folder, test_name):
    names = ["ant", "bee", "cat"]
    labels = [2, 0, 1, 1, 0, 2, 2]
    for shard, seeds in enumerate((range(4), range(4, 7))):
        columns = {"image": struct_of(seeds), "label": [labels[seed] for seed in seeds]}
        write(tmp_path / f"{folder}train-{shard:05}-of-00002.parquet", columns, names)
    columns = {"image": struct_of(range(7, 9)), "label": [1, 2]}
    write(tmp_path / f"{folder}{test_name}-00000-of-00001.parquet", columns, names)
    train, test = open_images(str(tmp_path))
    check_pixels(train, list(range(7)))
    check_pixels(test, [7, 8])
    assert labels_of(train).tolist() == labels
    assert labels_of(test).tolist() == [1, 2]
    assert train.classes == present(test).classes == tuple(names)
    assert train.ids[4] == f"{folder}train-00001-of-00002.parquet:0"


def test_split_named_by_the_folder(tmp_path):
    write(tmp_path / "train/0000.parquet", {"image": struct_of(range(4)), "label": [0, 1, 0, 1]})
    write(tmp_path / "test/0000.parquet", {"image": struct_of(range(4, 6)), "label": [1, 0]})
    train, test = open_images(str(tmp_path))
    check_pixels(train, [0, 1, 2, 3])
    check_pixels(test, [4, 5])


def test_glob_and_one_file(tmp_path):
    for split, seeds in (("train", range(4)), ("test", range(4, 6))):
        write(tmp_path / f"{split}-0.parquet", {"image": struct_of(seeds)})
    one, none = open_images(str(tmp_path / "test-0.parquet"))
    check_pixels(one, [4, 5])
    assert none is None
    train, test = open_images(str(tmp_path / "*.parquet"))
    check_pixels(train, [0, 1, 2, 3])
    check_pixels(test, [4, 5])


def test_a_hidden_test_split_gives_way_to_validation(tmp_path):
    for split, labels in (("train", [0, 1]), ("test", [-1, -1]), ("validation", [1, 0])):
        write(tmp_path / f"{split}-0.parquet", {"image": struct_of(range(2)), "label": labels})
    _, test = open_images(str(tmp_path))
    assert present(test).ids[0].startswith("validation")
    assert labels_of(test).tolist() == [1, 0]


def test_binary_column_and_string_labels(tmp_path):
    columns = {"photo": [png(picture(i)) for i in range(4)], "label": ["b", "a", "b", "a"]}
    write(tmp_path / "a.parquet", columns)
    train, _ = open_images(DataConfig(spec=str(tmp_path), test_fraction=0.0))
    check_pixels(train, [0, 1, 2, 3])
    assert (labels_of(train).tolist(), train.classes) == ([1, 0, 1, 0], ("a", "b"))


def test_columns_are_named_where_they_are_ambiguous(tmp_path):
    columns = {
        "left": struct_of(range(4)),
        "right": struct_of(range(4, 8)),
        "age": [30, 40, 30, 40],
        "height": [1, 1, 2, 2],
    }
    write(tmp_path / "a.parquet", columns)
    spec = str(tmp_path)
    with pytest.raises(UserError, match=r"got 2 \(left, right\).*image_column"):
        open_images(spec)
    with pytest.raises(UserError, match=r"got age, height.*label_column"):
        open_images(DataConfig(spec=spec, image_column="left"))
    with pytest.raises(UserError, match="did you mean 'right'"):
        open_images(DataConfig(spec=spec, image_column="rigth"))
    with pytest.raises(UserError, match="did you mean 'age'"):
        open_images(DataConfig(spec=spec, image_column="left", label_column="aeg"))
    config = DataConfig(spec=spec, image_column="right", label_column="age", test_fraction=0.0)
    train, _ = open_images(config)
    check_pixels(train, [4, 5, 6, 7])
    assert (labels_of(train).tolist(), train.classes) == ([0, 1, 0, 1], ("30", "40"))


def test_label_out_of_the_named_classes_is_an_error(tmp_path):
    columns = {"image": struct_of(range(2)), "label": [0, 2]}
    write(tmp_path / "a.parquet", columns, ["ant", "bee"])
    with pytest.raises(UserError, match="from 0 to 1"):
        open_images(str(tmp_path))


def test_rows_without_bytes_are_skipped(tmp_path):
    rows = [*struct_of(range(3)), {"bytes": None, "path": "elsewhere.png"}]
    write(tmp_path / "a.parquet", {"image": rows})
    train, _ = open_images(DataConfig(spec=str(tmp_path), max_bad_fraction=0.5))
    check_pixels(train, [0, 1, 2])
    assert train.skipped == (("a.parquet:3", "the row holds no image bytes"),)


def test_mixed_sizes_are_read_by_row_group(tmp_path, monkeypatch):
    """Any row in any order, and never more than the row group around it."""
    sizes = [(5, 6), (4, 9), *[(3, 3)] * 8]
    rows = [{"bytes": png(picture(i, size)), "path": None} for i, size in enumerate(sizes)]
    write(tmp_path / "a.parquet", {"image": rows}, rows_a_group=4)
    train, _ = open_images(str(tmp_path))
    assert isinstance(train, ImageFiles)
    groups = []
    real = parquet._row_group
    monkeypatch.setattr(
        parquet, "_row_group", lambda *key: (groups.append(real(*key)), groups[-1])[1]
    )
    for i in (9, 0, 4, 3, 8, 1):
        np.testing.assert_array_equal(np.asarray(train.read(i)), picture(i, sizes[i]))
    assert [len(group) for group in groups] == [2, 4, 4, 4, 2, 4]
    part = train.select(torch.tensor([8, 1]))
    np.testing.assert_array_equal(np.asarray(part.read(1)), picture(1, sizes[1]))
