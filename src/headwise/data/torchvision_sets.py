"""torchvision's data sets, which must already be on the disk."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from headwise.data import torchvision_files
from headwise.data.arrays import from_arrays
from headwise.data.images import ResidentImages, Splits
from headwise.errors import UserError, nearest

ARRAYS = ("CIFAR10", "CIFAR100", "STL10", "SVHN", "MNIST", "FashionMNIST", "KMNIST", "USPS")
"""The data sets that torchvision keeps as arrays. The others are image files."""
NAMES = (*ARRAYS, *torchvision_files.NAMES)


def data_root() -> Path:
    """Return the folder of the data sets: $HEADWISE_DATA, or else ./data."""
    return Path(os.environ.get("HEADWISE_DATA") or "data")


def open_torchvision(name: str) -> Splits:
    """Return training and test images of a data set in `data_root()`. Nothing is downloaded."""
    if name not in NAMES:
        raise UserError(f"torchvision:{name} is not known: {nearest(name, NAMES)}")
    root = data_root()
    try:
        if name in torchvision_files.NAMES:
            return torchvision_files.open_files(name, root)
        return Splits(_images(name, root, train=True), _images(name, root, train=False))
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"torchvision:{name} must lie in {root} ({_line(error)}); "
            f"{torchvision_files.download_hint(name, root)}; or name its folder in HEADWISE_DATA"
        ) from error


def _images(name: str, root: Path, train: bool) -> ResidentImages:
    from torchvision import datasets

    split = "train" if train else "test"
    match name:
        case "CIFAR10":
            data = datasets.CIFAR10(root, train=train)
        case "CIFAR100":
            data = datasets.CIFAR100(root, train=train)
        case "STL10":
            data = datasets.STL10(str(root), split=split)
        case "SVHN":
            data = datasets.SVHN(root, split=split)
        case "MNIST":
            data = datasets.MNIST(root, train=train)
        case "FashionMNIST":
            data = datasets.FashionMNIST(root, train=train)
        case "KMNIST":
            data = datasets.KMNIST(root, train=train)
        case _:
            assert name == "USPS", name
            data = datasets.USPS(root, train=train)
    loaded: Any = data  # each data set has other fields
    labels = loaded.labels if name in ("STL10", "SVHN") else loaded.targets
    images = from_arrays(np.asarray(loaded.data), np.asarray(labels), f"{name}-{split}")
    if name in ("SVHN", "USPS"):
        return images
    return dataclasses.replace(images, classes=tuple(loaded.classes))


def _line(error: Exception) -> str:
    return str(error).split(". You can use")[0].rstrip(".")
