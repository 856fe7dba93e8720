"""Images and labels from arrays and from `.npz` files."""

import dataclasses
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor

from headwise.data.images import Images, ResidentImages, Splits, resident_images
from headwise.data.split import own_split
from headwise.errors import UserError

NPZ_KEYS = {
    "train": (("images", "labels"), ("x_train", "y_train"), ("train_images", "train_labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
    "val": (("x_val", "y_val"), ("val_images", "val_labels")),
}
"""The keys of images and labels in an `.npz`, by split."""


def as_pixels(array: Shaped[np.ndarray, "..."], where: str) -> UInt8[Tensor, "n 3 h w"]:
    """Return uint8 images of 1 (grey), 3 (RGB) or 4 (RGBA, composited over white) channels as NCHW
    of three channels. The array is NHWC, NCHW or NHW; an ambiguous shape counts as NHWC."""
    if array.ndim == 3:
        array = array[..., None]
    channels = (1, 3, 4)
    if (
        array.dtype != np.uint8
        or array.ndim != 4
        or not {array.shape[1], array.shape[3]} & set(channels)
    ):
        raise UserError(
            f"{where} must be uint8 of shape NHW, NHWC or NCHW with 1, 3 or 4 channels; "
            f"got {array.dtype} of shape {array.shape}: convert the array first"
        )
    if array.shape[3] in channels:
        array = array.transpose(0, 3, 1, 2)
    if array.shape[1] == 4:
        alpha = array[:, 3:].astype(np.uint16)
        over_white = (array[:, :3] * alpha + 255 * (255 - alpha) + 127) // 255
        array = over_white.astype(np.uint8)
    n, _, height, width = array.shape
    return torch.from_numpy(np.array(np.broadcast_to(array, (n, 3, height, width)), order="C"))


def as_labels(
    values: Shaped[np.ndarray, "..."], where: str
) -> tuple[Int64[Tensor, " n"], tuple[str, ...]]:
    """Return labels, which are integers or strings, as indices into their sorted classes, and the
    names of the classes."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "iubUSO":
        raise UserError(
            f"{where}: labels must be one integer or one string per image; "
            f"got {values.dtype} of shape {values.shape}"
        )
    classes, index = np.unique(values, return_inverse=True)
    return torch.from_numpy(index.astype(np.int64)), tuple(map(str, classes.tolist()))


def from_arrays(
    images: Shaped[np.ndarray, "..."], labels: Shaped[np.ndarray, "..."] | None, where: str
) -> ResidentImages:
    """Return images in memory. Their ids are `where`:position."""
    pixels = as_pixels(images, where)
    ids = [f"{where}:{i}" for i in range(len(pixels))]
    if labels is None:
        return resident_images(pixels, None, (), ids)
    if len(labels) != len(pixels):
        raise UserError(
            f"{where} must have one label per image; got {len(labels)} for {len(pixels)}"
        )
    return resident_images(pixels, *as_labels(labels, where), ids)


def open_npz(path: Path) -> Splits:
    """Return the arrays of an `.npz` under any of `NPZ_KEYS`, with class names from `classes`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} must be an .npz file of plain arrays: {error}") from error
    parts: dict[str, Images] = {}
    for split, pairs in NPZ_KEYS.items():
        for images, labels in pairs:
            if images in arrays:
                where = f"{path.name}:{images}"
                parts[split] = _named(
                    from_arrays(arrays[images], arrays.get(labels), where), arrays
                )
    if "train" not in parts:
        expected = " or ".join(images for images, _ in NPZ_KEYS["train"])
        raise UserError(f"{path} must hold {expected}; got {', '.join(arrays) or 'no arrays'}")
    return own_split(parts, str(path))


def _named(images: ResidentImages, arrays: Mapping[str, np.ndarray]) -> ResidentImages:
    """Replace class numbers by class names if the file has names."""
    if "classes" not in arrays or images.labels is None:
        return images
    names = arrays["classes"].tolist()
    numbers = [int(name) if name.isdecimal() else -1 for name in images.classes]
    if not all(0 <= number < len(names) for number in numbers):
        raise UserError(
            f"classes must hold a name at the index of every label; got {len(names)} names "
            f"for the labels {', '.join(images.classes[:10])}"
        )
    return dataclasses.replace(images, classes=tuple(str(names[number]) for number in numbers))
