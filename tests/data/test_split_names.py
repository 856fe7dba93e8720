"""One rule for the names of splits, the same for folders, zips, parquet and npz."""

import logging
import zipfile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from narrow import labels_of, present
from sources import png, write_folder

from headwise.data import DataConfig, open_images
from headwise.data.account import reading
from headwise.data.split_names import split_of
from headwise.errors import UserError

NAMES = {
    "train": "train train-00000-of-00005 train_0 train0 train.part1 train2017 data_train "
    "cifar-train cifar10_train_2 training training_set trainset Train TRAINING trainImages",
    "test": "test test-00000-of-00001 test_0 test0 data_test cifar-test testing test_set TEST "
    "Testing",
    "val": "val valid validation VAL val2017 validation-00000-of-00001 val_set",
    "dev": "dev dev_set Dev",
    "eval": "eval evaluation eval_0",
    "holdout": "holdout hold_out hold-out HOLDOUT held_out",
    "": "cat dog trainer latest contest devil evaluate value invalid traintest images 0",
}
"""Every name, by its split."""


@pytest.mark.parametrize(
    ("name", "split"), [(name, split) for split, names in NAMES.items() for name in names.split()]
)
def test_the_split_of_a_name(name, split):
    assert split_of(name) == (split or None)


def write(form, root, train, test):
    """A source of 4 training images of two classes and 2 test images, split by these names."""
    root.mkdir()
    match form:
        case "folder" | "zip":
            paths = [f"{train}/{kind}/{i}.png" for kind in "ab" for i in range(2)]
            write_folder(root, [*paths, f"{test}/a/0.png", f"{test}/b/0.png"])
            if form == "zip":
                with zipfile.ZipFile(root.with_suffix(".zip"), "w") as file:
                    for path in sorted(root.rglob("*.png")):
                        file.write(path, path.relative_to(root))
                return root.with_suffix(".zip")
        case "parquet":
            for name, labels in ((train, [0, 0, 1, 1]), (test, [0, 1])):
                columns = {"image": [png(i) for i in range(len(labels))], "label": labels}
                pq.write_table(pa.table(columns), root / f"{name}.parquet")
        case "npz":
            arrays: dict[str, Any] = {}
            for name, labels in ((train, [0, 0, 1, 1]), (test, [0, 1])):
                arrays[f"x_{name}"] = np.zeros((len(labels), 4, 5, 3), np.uint8)
                arrays[f"y_{name}"] = np.array(labels)
            np.savez(root / "a.npz", **arrays)
            return root / "a.npz"
    return root


PAIRS = (
    *[("train", name) for name in ["test", "val", "valid", "validation", "dev", "eval", "holdout"]],
    *[("Training", "Testing"), ("training_set", "test_set"), ("train_0", "test_0")],
    *[("train0", "test0"), ("data_train", "data_test"), ("cifar-train", "cifar-test")],
)


@pytest.mark.parametrize("form", ["folder", "zip", "parquet", "npz"])
@pytest.mark.parametrize(("train_name", "test_name"), PAIRS)
def test_every_source_knows_them(tmp_path, form, train_name, test_name):
    spec = write(form, tmp_path / "source", train_name, test_name)
    train, test = open_images(str(spec))
    assert len(train) == 4
    assert len(present(test)) == 2
    assert labels_of(train).tolist() == [0, 0, 1, 1]
    assert labels_of(test).tolist() == [0, 1]


def error_of(spec) -> str:
    with pytest.raises(UserError) as caught:
        open_images(str(spec))
    assert "\n" not in str(caught.value)
    return str(caught.value)


CLASSES = ["train/a/0.png", "train/b/0.png", "train/b/1.png"]


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ([*CLASSES, "test/a/0.png", "cat/0.png"], ["test, train", "cat"]),
        (["val/a/0.png", "test/a/0.png"], ["test, val", "none is for training"]),
        (["images/0.png", "masks/0.png"], ["images", "masks", "not classes", "move masks"]),
        (["images/a/0.png", "SegmentationClass/a/0.png"], ["SegmentationClass"]),
        (["train/images/0.png", "train/masks/0.png", "test/images/0.png"], ["masks"]),
        (["train_images/0.png", "train_masks/0.png", "test_images/0.png"], ["train_masks"]),
    ],
)
def test_folders_that_may_be_either_are_refused(tmp_path, paths, words):
    message = error_of(write_folder(tmp_path / "source", paths))
    assert all(word in message for word in words), message


def test_shards_of_which_some_have_no_split_are_refused(tmp_path):
    for name in ("train-0", "other"):
        pq.write_table(pa.table({"image": [png(0)]}), tmp_path / f"{name}.parquet")
    message = error_of(tmp_path)
    assert "train-0 have one" in message
    assert "other not" in message
    assert len(open_images(str(tmp_path / "train*.parquet")).train) == 1


def test_two_arrays_for_one_split_are_refused(tmp_path):
    pixels = np.zeros((2, 4, 4), np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, x_train=pixels)
    assert "images and x_train" in error_of(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (
            [*CLASSES, "unlabeled/0.png", "unlabeled/1.png"],
            "not used, beside the splits: unlabeled",
        ),
        (["train/0.png", "bus/0.png", "bus/1.png"], "train read as classes"),
        (["a/train/0.png", "a/test/1.png", "b/train/0.png", "b/test/0.png"], "inside classes"),
        ([*CLASSES, "test/0.png"], "give those alone as the images"),
        ([*CLASSES, "test/a/0.png", "val/a/0.png"], "1 images of val are not used"),
    ],
)
def test_what_looks_like_a_split_and_is_none_is_said(tmp_path, caplog, paths, said):
    open_images(str(write_folder(tmp_path / "source", paths)))
    assert said in caplog.text


def test_unlabelled_images_beside_a_training_folder_are_no_class(tmp_path):
    paths = [*CLASSES, "train/a/1.png", "unlabeled/0.png"]
    train, test = open_images(str(write_folder(tmp_path / "source", paths)))
    assert train.classes == ("a", "b")
    assert len(train) + len(present(test)) == 4
    assert ("unlabeled/0.png", "beside the folders of the splits") in train.left_out


def test_training_images_alone_are_what_the_advice_says(tmp_path):
    paths = [f"train/{kind}/{i}.png" for kind in "ab" for i in range(5)]
    root = write_folder(tmp_path / "source", [*paths, "test/0.png"])
    _, test = open_images(str(root / "train"))
    assert labels_of(test).tolist() == [0, 1]


@pytest.mark.parametrize("inner", ["images", "images/all"])
def test_a_folder_around_the_classes_of_a_split_keeps_their_labels(tmp_path, inner):
    paths = [f"train/{inner}/{kind}/{i}.png" for kind in "ab" for i in range(2)]
    root = write_folder(tmp_path / "source", [*paths, f"test/{inner}/b/0.png"])
    train, test = open_images(str(root))
    assert labels_of(train).tolist() == [0, 0, 1, 1]
    assert labels_of(test).tolist() == [1]


def test_the_reading_is_one_line(tmp_path, caplog):
    root = write_folder(tmp_path / "photos", [*CLASSES, "test/a/0.png", "notes.txt"])
    with caplog.at_level(logging.INFO, "headwise"):
        splits = open_images(str(root))
    line = f"{root}: 4 images: train 3 in 2 classes, test 1; split by folder names"
    assert line in caplog.text
    assert "1 files are not read as images: 1 (ends in .txt)" in caplog.text
    assert reading(splits, "photos") == line.replace(str(root), "photos")


def test_the_reading_of_a_drawn_split_and_of_none(tmp_path):
    root = write_folder(tmp_path / "photos", [f"{k}/{i}.png" for k in "ab" for i in range(5)])
    drawn = open_images(str(root))
    expected = (
        "p: 10 images: train 8 in 2 classes, test 2; split drawn, about 0.2 of every class, seed 0"
    )
    assert reading(drawn, "p") == expected
    flat = open_images(str(root / "a"))
    assert reading(flat, "p") == "p: 5 images for training, without labels; no test images"


def test_other_shares_of_classes_in_the_test_images_are_said(tmp_path, caplog):
    labels = np.array([0, 1] * 100)
    pixels = np.zeros((200, 2, 2), np.uint8)
    path = tmp_path / "a.npz"
    np.savez(path, x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    open_images(str(path))
    assert "other shares" not in caplog.text
    rare = (np.arange(200) > 189).astype(int)
    np.savez(path, x_train=pixels, y_train=labels, x_test=pixels, y_test=rare)
    open_images(str(path))
    assert "0 has 95% of the test images and 50% of the training images" in caplog.text


def test_a_limit_balances_training_and_test_images_alike(tmp_path):
    rare = (np.arange(200) > 189).astype(int)
    pixels = np.zeros((200, 2, 2), np.uint8)
    np.savez(tmp_path / "a.npz", x_train=pixels, y_train=rare, x_test=pixels, y_test=rare)
    for images in open_images(DataConfig(spec=str(tmp_path / "a.npz"), limit=20)):
        assert labels_of(images).bincount().tolist() == [10, 10]
