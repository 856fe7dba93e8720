"""Labels from a CSV file, and groups of images that stay in one split."""

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from narrow import present
from PIL import Image

from headwise.data import DataConfig, Images, open_images
from headwise.data.groups import split_by_group
from headwise.data.record import changes, write_record
from headwise.errors import UserError

FILES = [f"{c}/slide{g}_{i}.png" for c in "ab" for g in range(8) for i in range(3)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Two classes of eight slides with three images each."""
    folder = tmp_path_factory.mktemp("photos")
    for k, name in enumerate(FILES):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (k, 2 * k, 255 - k)).save(folder / name)
    return folder


def write_csv(path: Path, *rows: tuple[str, ...]) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return str(path)


def opened(photos: Path, **given):
    return open_images(DataConfig(spec=str(photos), cache=False, **given))


def slides(images) -> set[str]:
    return {id.rpartition("_")[0] for id in images.ids}


def both(splits) -> tuple[Images, Images]:
    return splits.train, present(splits.test)


def groups(images) -> list[int]:
    return present(images.groups).tolist()


def test_a_group_stays_in_one_split(photos):
    pattern = r"(./slide\d)_"
    train, test = both(opened(photos, group_pattern=pattern))
    assert slides(train).isdisjoint(slides(test))
    assert len(train) + len(test) == len(FILES)
    assert {id[0] for id in test.ids} == {id[0] for id in train.ids} == {"a", "b"}
    # Without the pattern some slides are on both sides, or the above would show nothing.
    assert not slides(opened(photos).train).isdisjoint(slides(opened(photos).test))
    held = opened(photos, group_pattern=pattern, validation_fraction=0.3)[0]
    out = opened(photos, group_pattern=pattern, validation_fraction=0.3, test_on="validation")[1]
    assert slides(held).isdisjoint(slides(out))
    assert slides(held) | slides(out) == slides(train)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), n=st.integers(1, 40), seed=st.integers(0, 99))
def test_whole_groups_are_drawn_whatever_the_labels(data, n, seed):
    draw = st.lists(st.integers(-1, 3), min_size=n, max_size=n)
    labels = torch.tensor(data.draw(draw))
    groups = torch.tensor(data.draw(draw)) * (2**62 + 7)
    train, test = split_by_group(labels, groups, 0.3, seed)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(n))
    assert set(groups[train].tolist()).isdisjoint(groups[test].tolist())
    for group in set(groups[test].tolist()):
        assert (labels[groups == group] >= 0).any()  # others would test nothing
    for label in set(labels.tolist()) - {-1}:
        if len(set(groups[labels == label].tolist())) == 1:  # it cannot be on both sides
            continue
        assert set(labels.tolist()) - {-1, label} or label in labels[test].tolist()


def test_about_the_fraction_of_many_groups_is_drawn_and_others_do_not_move_it():
    groups = torch.arange(2000) // 2
    labels = torch.arange(2000) // 2 % 5
    test = split_by_group(labels, groups, 0.2, 0)[1]
    assert 0.15 < len(test) / 2000 < 0.25
    fewer = split_by_group(labels[:1000], groups[:1000], 0.2, 0)[1]
    assert fewer.tolist() == test[test < 1000].tolist()


def test_a_csv_says_labels_splits_and_groups(photos, tmp_path, caplog):
    rows = [
        (f, "cat;dog" if g % 2 else "cat", "test" if g in (3, 4) else "", f"s{g}")
        for f in FILES[:-3]
        for g in [int(f[7])]
    ]
    path = write_csv(tmp_path / "labels.csv", ("path", "label", "split", "group"), *rows)
    with caplog.at_level("INFO"):
        train, test = both(opened(photos, labels=path))
    assert train.classes == ("cat", "cat+dog")
    assert {f[7] for f in test.ids} == {"3", "4"}
    assert present(train.labels).tolist().count(-1) == 3  # those that it does not name
    for part in (train, test):
        for id, label, group in zip(
            part.ids, present(part.labels).tolist(), groups(part), strict=True
        ):
            named = id in FILES[:-3]
            assert label == (int(id[7]) % 2 if named else -1)
            mates = [other for other, g in zip(part.ids, groups(part), strict=True) if g == group]
            of_slide = [o for o in part.ids if o[7] == id[7] and o in FILES[:-3]]
            assert mates == (of_slide if named else [id])
    assert "3 without a label" in caplog.text


def test_splits_of_folders_stay_where_the_csv_has_none(photos, tmp_path):
    pairs = [(f, "xy"[int(f[7]) % 2]) for f in FILES]
    path = write_csv(tmp_path / "labels.csv", ("path", "label"), *pairs)
    train, test = both(opened(photos, labels=path))
    assert train.classes == ("x", "y")
    assert train.groups is None
    assert len(test)  # drawn


def test_a_column_of_parquet_says_groups(photos, tmp_path):
    columns = {
        "image": [(photos / f).read_bytes() for f in FILES],
        "label": [f[0] for f in FILES],
        "patient": [None if f == FILES[0] else int(f[7]) for f in FILES],
    }
    pq.write_table(pa.table(columns), tmp_path / "photos.parquet")
    data = DataConfig(spec=str(tmp_path / "photos.parquet"), cache=False, group_column="patient")
    train, test = both(open_images(data))
    assert not set(groups(train)) & set(groups(test))
    assert len({*groups(train), *groups(test)}) == 9  # eight, and one alone
    with pytest.raises(UserError, match=r"no column 'patent'.*patient"):
        open_images(DataConfig(spec=data.spec, cache=False, group_column="patent"))


def test_groups_in_both_splits_of_the_source_are_said(photos, tmp_path, caplog):
    rows = [(f, f[0], "test" if f.endswith("_0.png") else "train", f[:8]) for f in FILES]
    path = write_csv(tmp_path / "labels.csv", ("path", "label", "split", "group"), *rows)
    opened(photos, labels=path)
    assert "16 groups have images in training and in test" in caplog.text


def test_a_run_notices_that_groups_changed(photos, tmp_path):
    write_record(tmp_path, opened(photos, group_pattern=r"(./slide\d)_", test_fraction=0.0))
    assert not changes(tmp_path, opened(photos, group_pattern=r"(./slide\d)_", test_fraction=0.0))
    now = changes(tmp_path, opened(photos, group_pattern=r"(./slide)", test_fraction=0.0))
    assert now.startswith("48 in another group (")


HEADER = ("path", "label")


@pytest.mark.parametrize(
    ("rows", "wrong"),
    [
        ([HEADER, ("a/nope.png", "x")], r"1 of 1 are not there: 'a/nope.png'; a path is: a/slide0"),
        ([("file", "label"), ("a", "x")], r"must have a column 'path'; got file, label"),
        ([("path",), ("a",)], r"must have a column 'label'; got path"),
        ([HEADER, (FILES[0], "x"), (FILES[0], "y")], r"one thing of each image"),
        ([(*HEADER, "split"), (FILES[0], "x", "tset")], r"train, validation or test; got 'tset'"),
        ([], r"must have a column 'path'; got nothing"),
    ],
)
def test_wrong_labels_are_one_line(photos, tmp_path, rows, wrong):
    path = write_csv(tmp_path / "labels.csv", *rows)
    with pytest.raises(UserError, match=wrong) as error:
        opened(photos, labels=path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"labels": "nowhere.csv"}, r"must be a CSV file that exists; got nowhere.csv"),
        ({"group_pattern": "zzz"}, r"'zzz' puts no two images together; a path is: a/slide0_0.png"),
        ({"group_pattern": "("}, r"must be a regular expression"),
        ({"group_column": "slide"}, r"has no columns; give --data.group-pattern"),
        ({"group_column": "a", "group_pattern": "b"}, r"leave one out"),
    ],
)
def test_wrong_settings_are_one_line(photos, given, wrong):
    with pytest.raises(UserError, match=wrong):
        opened(photos, **given)


def test_labels_are_for_files(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((4, 8, 8, 3), np.uint8))
    path = write_csv(tmp_path / "labels.csv", HEADER)
    with pytest.raises(UserError, match="is for images in files"):
        open_images(DataConfig(spec=str(tmp_path / "x.npz"), labels=path))
