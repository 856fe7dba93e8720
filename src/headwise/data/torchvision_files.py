"""torchvision's data sets of image files, which must already be on the disk."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from headwise import rng
from headwise.data.folder import FolderSource, walk
from headwise.data.images import ImageFiles, Splits, fingerprint, image_files

NAMES = (
    "Food101",
    "SUN397",
    "StanfordCars",
    "FGVCAircraft",
    "VOC2007",
    "DTD",
    "OxfordIIITPet",
    "Caltech101",
    "Flowers102",
)

Listing = list[tuple[str, str]]
"""The path of each image, and the name of its class."""

CALTECH_TRAIN = 30
"""Number of training images of each class of Caltech-101. All other images are for testing."""


def open_files(name: str, root: Path) -> Splits:
    """Return the (first) official training and test split of a data set. A validation split belongs
    to training. Raises `OSError` or torchvision's `RuntimeError` if files are missing."""
    train, test = _listings(name, root)
    if not train or not test:
        raise FileNotFoundError("lists of images are missing or empty")
    classes = tuple(sorted({name for _, name in train + test}))
    return Splits(_files(root, train, classes), _files(root, test, classes))


def download_hint(name: str, root: Path) -> str:
    """Return how to get the files and where to put them, for the error message."""
    statement = "import torchvision.datasets as d"
    match name:
        case "StanfordCars":
            return (
                "torchvision cannot download it any more: put cars_train, cars_test, devkit and "
                f"cars_test_annos_withlabels.mat into {root}/stanford_cars"
            )
        case "SUN397":
            return (
                f"get it with: python -c \"{statement}; d.SUN397('{root}', download=True)\", and "
                "put Training_01.txt and Testing_01.txt of the set's Partitions.zip into "
                f"{root}/SUN397"
            )
        case "VOC2007":
            return (
                f"get it with: python -c \"{statement}; [d.VOCDetection('{root}', year='2007', "
                "image_set=s, download=True) for s in ('trainval', 'test')]\""
            )
    return f"get it with: python -c \"{statement}; d.{name}('{root}', download=True)\""


def _listings(name: str, root: Path) -> tuple[Listing, Listing]:
    from torchvision import datasets

    match name:
        case "Food101":
            parts = [datasets.Food101(root, split=s, loader=str) for s in ("train", "test")]
        case "StanfordCars":
            parts = [datasets.StanfordCars(root, split=s, loader=str) for s in ("train", "test")]
        case "FGVCAircraft":
            parts = [datasets.FGVCAircraft(root, split=s, loader=str) for s in ("trainval", "test")]
        case "DTD":
            parts = [datasets.DTD(root, split=s, loader=str) for s in ("train", "val", "test")]
        case "Flowers102":
            splits = ("train", "val", "test")
            parts = [datasets.Flowers102(root, split=s, loader=str) for s in splits]
        case "OxfordIIITPet":
            return _pets(root, "trainval"), _pets(root, "test")
        case "SUN397":
            return _sun(root, "Training_01"), _sun(root, "Testing_01")
        case "VOC2007":
            return _voc(root, "trainval"), _voc(root, "test")
        case _:
            assert name == "Caltech101", name
            return _caltech(root)
    listings = [_listed(part) for part in parts]
    return [image for listing in listings[:-1] for image in listing], listings[-1]


def _listed(data: Any) -> Listing:
    """Return the listing of a torchvision data set whose loader returns the path."""
    return [(path, data.classes[label]) for path, label in (data[i] for i in range(len(data)))]


def _pets(root: Path, split: str) -> Listing:
    folder = root / "oxford-iiit-pet"
    lines = (folder / "annotations" / f"{split}.txt").read_text().splitlines()
    ids = [line.split()[0] for line in lines]
    return [(str(folder / "images" / f"{id}.jpg"), id.rpartition("_")[0]) for id in ids]


def _sun(root: Path, split: str) -> Listing:
    folder = root / "SUN397"
    lines = (folder / f"{split}.txt").read_text().split()
    return [(f"{folder}{line}", line.rpartition("/")[0].strip("/")) for line in lines]


def _voc(root: Path, split: str) -> Listing:
    """The class of an image is the set of its objects, such as `car+person`. Objects marked as
    difficult do not count."""
    folder = root / "VOCdevkit" / "VOC2007"
    objects: dict[str, list[str]] = {}
    for path in sorted((folder / "ImageSets" / "Main").glob(f"*_{split}.txt")):
        for line in path.read_text().splitlines():
            id, present = line.split()
            objects.setdefault(id, [])
            if present == "1":
                objects[id].append(path.name.removesuffix(f"_{split}.txt"))
    images = folder / "JPEGImages"
    return [(str(images / f"{id}.jpg"), "+".join(names)) for id, names in objects.items()]


def _caltech(root: Path) -> tuple[Listing, Listing]:
    """Return all 102 folders, including the background, as SimCLR's counts (3,060 and 6,084) do."""
    root = root / "caltech101" / "101_ObjectCategories"
    splits: tuple[Listing, Listing] = [], []
    for folder in sorted(walk(root)):
        name = folder.path.rstrip("/")
        paths = sorted(path for path, _, _ in folder.images)
        order = torch.randperm(len(paths), generator=rng.generator(0, "caltech101", name)).tolist()
        for position, i in enumerate(order):
            splits[position >= CALTECH_TRAIN].append((str(root / paths[i]), name))
    return sorted(splits[0]), sorted(splits[1])


def _files(root: Path, listing: Listing, classes: tuple[str, ...]) -> ImageFiles:
    ids = [os.path.relpath(path, root) for path, _ in listing]
    status = [os.stat(path) for path, _ in listing]
    content = _digest(zip(ids, (s.st_size for s in status), strict=True))
    stamp = _digest([root.resolve(), *((s.st_size, s.st_mtime_ns) for s in status)])
    index = {name: i for i, name in enumerate(classes)}
    labels = torch.tensor([index[name] for _, name in listing])
    return image_files(FolderSource(root, content, stamp), ids, labels, classes)


def _digest(rows: Iterable[object]) -> str:
    return fingerprint(ascii(list(rows)).encode())
