"""Targets by name: the paper's table, sets laid out as their authors do, and clear errors."""

import itertools
import json

import numpy as np
import pytest
import torch
from narrow import labels_of, present
from PIL import Image
from scipy.io import savemat

from headwise.data import ImageFiles, open_images
from headwise.data.torchvision_files import CALTECH_TRAIN
from headwise.errors import UserError
from headwise.evaluation.probes.multilabel import memberships
from headwise.evaluation.protocols.targets import PRESETS, open_target

SIDES = ((10, 8), (8, 10))  # unlike sizes in turn, so that the images stay files
turns = itertools.cycle(SIDES)


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADWISE_DATA", str(tmp_path))
    return tmp_path


def picture(path, grey: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", next(turns), grey).convert("RGB").save(path)


def listed(path, lines) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def food101(root):
    for split, i in ("train", 0), ("train", 1), ("test", 2):
        path = root / "food-101/meta" / f"{split}.json"
        found = json.loads(path.read_text()) if path.exists() else {}
        for kind in ("pie", "soup"):
            found.setdefault(kind, []).append(f"{kind}/{i}")
            picture(root / f"food-101/images/{kind}/{i}.jpg")
        listed(path, [json.dumps(found)])
    return "pie"


def sun397(root):
    for split, i in ("Training_01", 0), ("Testing_01", 1):
        paths = [f"/{kind}/sun_{i}.jpg" for kind in ("a/abbey", "b/bar/indoor")]
        listed(root / f"SUN397/{split}.txt", paths)
        for path in paths:
            picture(root / f"SUN397{path}")
    return "a/abbey"


def cars(root):
    base = root / "stanford_cars"
    annotations = np.array(
        [(f"{i}.jpg", 1 + i % 2) for i in range(4)], dtype=[("fname", "O"), ("class", "i4")]
    )
    (base / "devkit").mkdir(parents=True)
    savemat(base / "devkit/cars_train_annos.mat", {"annotations": annotations})
    savemat(base / "cars_test_annos_withlabels.mat", {"annotations": annotations[:2]})
    savemat(base / "devkit/cars_meta.mat", {"class_names": np.array(["Audi", "Volvo"], dtype="O")})
    for path in [f"cars_{split}/{i}.jpg" for split in ("train", "test") for i in range(4)]:
        picture(base / path)
    return "Audi"


def aircraft(root):
    data = root / "fgvc-aircraft-2013b/data"
    listed(data / "variants.txt", ["707-320", "A 340"])
    for split, first in ("trainval", 0), ("test", 4):
        listed(
            data / f"images_variant_{split}.txt",
            [f"{first:07} 707-320", f"{first + 1:07} A 340"],
        )
        for i in range(2):
            picture(data / f"images/{first + i:07}.jpg")
    return "707-320"


def voc2007(root):
    base = root / "VOCdevkit/VOC2007"
    for split, first in ("trainval", 0), ("test", 3):
        ids = [f"{first + i:06}" for i in range(3)]
        for kind, marks in ("car", (1, -1, 0)), ("person", (1, 1, -1)):
            lines = [f"{id} {here:2d}" for id, here in zip(ids, marks, strict=True)]
            listed(base / f"ImageSets/Main/{kind}_{split}.txt", lines)
        listed(base / f"ImageSets/Main/{split}.txt", ids)
        for id in ids:
            picture(base / f"JPEGImages/{id}.jpg")
    return ""


def dtd(root):
    for i, split in enumerate(("train", "val", "test")):
        names = [f"{kind}/{kind}_{i}.jpg" for kind in ("banded", "woven")]
        listed(root / f"dtd/dtd/labels/{split}1.txt", names)
        for name in names:
            picture(root / f"dtd/dtd/images/{name}")
    return "banded"


def pets(root):
    base = root / "oxford-iiit-pet"
    for split, i in ("trainval", 1), ("test", 2):
        ids = [f"{kind}_{i}" for kind in ("Abyssinian", "great_pyrenees")]
        listed(base / f"annotations/{split}.txt", [f"{id} 1 1 1" for id in ids])
        for id in ids:
            picture(base / f"images/{id}.jpg")
    return "Abyssinian"


def caltech101(root):
    for kind in ("BACKGROUND_Google", "ant"):
        for i in range(CALTECH_TRAIN + 2):
            picture(root / f"caltech101/101_ObjectCategories/{kind}/image_{i:04}.jpg", i)
    return "BACKGROUND_Google"


def flowers(root):
    base = root / "flowers-102"
    base.mkdir()
    savemat(base / "setid.mat", {"trnid": [1, 2], "valid": [3, 4], "tstid": [5, 6]})
    savemat(base / "imagelabels.mat", {"labels": [1, 2, 1, 2, 1, 2]})
    for i in range(1, 7):
        picture(base / f"jpg/image_{i:05}.jpg")
    return "hard-leaved pocket orchid"


def birdsnap(root):
    for split in ("train", "test"):
        for kind in ("finch", "wren"):
            picture(root / f"birdsnap/{split}/{kind}/0.jpg")
            picture(root / f"birdsnap/{split}/{kind}/1.jpg")
    return "finch"


# Images of train and test, and classes.
SETS = {
    food101: (4, 2, 2),
    sun397: (2, 2, 2),
    cars: (4, 2, 2),
    aircraft: (2, 2, 2),
    voc2007: (3, 3, 3),
    dtd: (4, 2, 2),
    pets: (2, 2, 2),
    caltech101: (2 * CALTECH_TRAIN, 4, 2),
    flowers: (4, 2, 2),
    birdsnap: (4, 4, 2),
}


@pytest.mark.parametrize("make", SETS, ids=lambda make: make.__name__)
def test_a_set_is_read_as_its_authors_lay_it_out(make, root, monkeypatch):
    # The lists of flowers are too short for their checksums.
    monkeypatch.setattr("torchvision.datasets.flowers102.check_integrity", lambda *_: True)
    first = make(root)
    target = open_target(make.__name__)
    train, test = target.images
    assert test is not None
    assert (len(train), len(test), len(train.classes)) == SETS[make]
    assert isinstance(train, ImageFiles)
    assert train.classes == test.classes
    assert train.classes[0] == first
    assert not set(train.ids) & set(test.ids)
    assert (
        set(labels_of(train).tolist())
        == set(labels_of(test).tolist())
        == set(range(len(train.classes)))
    )
    assert train.read(0).size in SIDES
    assert target.metric == PRESETS[make.__name__].metric


def test_labels_follow_the_images(root):
    pets(root)
    train, test = open_images("torchvision:OxfordIIITPet")
    for images in (train, present(test)):
        kinds = [images.classes[label] for label in labels_of(images)]
        assert [id.rpartition("/")[2].rpartition("_")[0] for id in images.ids] == kinds


def test_an_image_of_voc_has_all_its_classes_but_difficult_ones(root):
    voc2007(root)
    train, _ = open_target("voc2007").images
    classes, sets = memberships(train.classes)
    assert classes == ("car", "person")
    assert sets[train.labels].int().tolist() == [[1, 1], [0, 1], [0, 0]]


def test_caltech_is_drawn_once_and_for_all(root):
    caltech101(root)
    train, test = open_target("caltech101").images
    again, _ = open_target("caltech101").images
    assert list(train.ids) == list(again.ids)
    assert train.fingerprint == again.fingerprint
    assert labels_of(train).bincount().tolist() == [CALTECH_TRAIN] * 2
    assert labels_of(test).bincount().tolist() == [2, 2]
    assert not all(id.endswith(("30.jpg", "31.jpg")) for id in present(test).ids)


def test_the_metrics_are_the_papers():
    assert len(PRESETS) == 12
    metrics = {name: preset.metric for name, preset in PRESETS.items()}
    others = {name for name, metric in metrics.items() if metric != "top1"}
    assert others == {"aircraft", "pets", "caltech101", "flowers", "voc2007"}
    assert metrics["voc2007"] == "map11"
    assert {metrics[name] for name in others - {"voc2007"}} == {"per_class"}


def error_of(text: str) -> str:
    with pytest.raises(UserError) as caught:
        open_target(text)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("--transfer.targets")
    return message


@pytest.mark.parametrize("name", PRESETS)
def test_a_set_that_is_not_there_says_where_it_should_be_and_how_to_get_it(name, root):
    message = error_of(name)
    assert str(root) in message
    assert "download=True" in message or name in ("birdsnap", "cars")
    assert not list(root.iterdir())


def test_an_image_that_a_list_names_must_be_there(root):
    dtd(root)
    (root / "dtd/dtd/images/woven/woven_2.jpg").unlink()
    assert "woven_2.jpg" in error_of("dtd")
    listed(root / "SUN397/Training_01.txt", [])
    listed(root / "SUN397/Testing_01.txt", [])
    assert "missing or empty" in error_of("sun397")


def test_any_images_can_be_a_target(root):
    target = open_target("mine=builtin:digits", limit=30)
    assert (target.name, target.spec, target.metric) == ("mine", "builtin:digits", "top1")
    assert [len(present(part)) for part in target.images] == [30, 30]
    assert open_target("mine:per_class=builtin:digits", limit=30).metric == "per_class"
    folder = root / "elsewhere=here"
    birdsnap(folder)
    moved = open_target(f"pets={folder}/birdsnap")
    assert (moved.name, moved.metric) == ("pets", "per_class")
    assert moved.spec == f"{folder}/birdsnap"
    assert open_target(f"pets:top1={folder}/birdsnap").metric == "top1"


def test_what_is_no_target_is_said_in_a_line(root):
    assert "did you mean 'flowers'" in error_of("flower")
    assert "known metric; did you mean 'top1'" in error_of("mine:top2=builtin:digits")
    for wrong in ("=builtin:digits", "a/b=builtin:digits", "a b=builtin:digits", "mine="):
        assert "must be NAME=IMAGES" in error_of(wrong)
    assert "must be a path that exists" in error_of("mine=nowhere")
    np.savez(root / "plain.npz", images=np.zeros((4, 8, 8, 3), np.uint8))
    assert "labelled training and test images" in error_of(f"mine={root}/plain.npz")


def test_a_limit_leaves_every_class(root):
    target = open_target("mine=builtin:shapes", limit=20)
    train, test = target.images
    assert labels_of(train).bincount().tolist() == labels_of(test).bincount().tolist() == [2] * 10
    assert torch.equal(labels_of(train).unique(), labels_of(test).unique())
