"""Images that a Python program holds: arrays, tensors, Pillow's images and data sets of torch."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Shaped
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from headwise.data.arrays import from_arrays, signed
from headwise.data.config import DataConfig
from headwise.data.decode import prepared
from headwise.data.images import ImageFiles, Images, ResidentImages, Splits
from headwise.data.split import own_split
from headwise.errors import UserError

Given = Splits | Images | np.ndarray | Tensor | list | tuple | Dataset
"""What `given_splits` takes."""

TAKES = (
    "images must be a uint8 array or tensor [n h w 3] or [n 3 h w], a list of Pillow's images, "
    "(images, labels), a Dataset of (image, label), or Splits(train, test) of these"
)


def given_splits(images: object) -> Splits:
    """Return images in memory as training images, or as training and test images if they are
    `Splits`. What `open_images` returned stays as it is. Raises `UserError` for anything else."""
    train, test = images if isinstance(images, Splits) else (images, None)
    if isinstance(train, Images) and (test is None or isinstance(test, Images)):
        return Splits(train, test)
    parts = {"train": _part(train, "train")}
    if test is not None:
        parts["test"] = _part(test, "test")
    return own_split(parts, "the given images", "as given" if test is not None else "")


def _part(given: object, where: str) -> Images:
    match given:
        case ResidentImages() | ImageFiles():
            return given
        case tuple() if len(given) == 2:
            array, names = _array(given[0]), np.asarray(given[1])
        case Dataset():
            array, names = _of_dataset(given)
        case _:
            array, names = _array(given), None
    if not len(array):
        raise UserError(f"{TAKES}; got none")
    return from_arrays(array, names, where, signed=signed([names]))


def _array(given: object) -> Shaped[np.ndarray, "n ..."]:
    match given:
        case np.ndarray():
            return given
        case Tensor():
            return given.detach().cpu().numpy()
        case list() | tuple() if all(isinstance(one, Image.Image) for one in given):
            return _stacked(given)
    raise UserError(f"{TAKES}; got {type(given).__name__}")


def _of_dataset(given: Dataset) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(given, IterableDataset):
        raise UserError(f"{TAKES}; got an IterableDataset: list its images first")
    count = len(given)  # type: ignore[arg-type]
    items = (given[i] for i in range(count))
    pairs = [item for item in items if isinstance(item, tuple | list) and len(item) == 2]
    if len(pairs) < count:
        raise UserError(f"{TAKES}; got a Dataset whose items are not pairs")
    return _stacked(image for image, _ in pairs), np.array([_label(label) for _, label in pairs])


def _label(given: object) -> object:
    return given.item() if isinstance(given, Tensor | np.generic) else given


def _stacked(images: Iterable[object]) -> Shaped[np.ndarray, "n ..."]:
    """Return images of one size as an array, if they are no larger than what is kept in memory."""
    most = DataConfig().resident_mib * 2**20
    arrays: list[np.ndarray] = []
    for image in images:
        picture = prepared(image, None, "crop") if isinstance(image, Image.Image) else image
        arrays.append(picture.numpy() if isinstance(picture, Tensor) else np.asarray(picture))
        if arrays[-1].shape != arrays[0].shape:
            shapes = " and ".join(str(a.shape) for a in (arrays[0], arrays[-1]))
            raise UserError(
                f"images in memory must have one size; got {shapes}: "
                "resize them, or give a folder of them as data"
            )
        if len(arrays) * arrays[0].nbytes > most:
            raise UserError(
                f"images in memory must take at most {most / 2**20:,.0f} MiB: "
                "give a folder of them as data"
            )
    return np.stack(arrays) if arrays else np.empty((0, 1, 1, 3), np.uint8)
