"""Images and labels from arrays and from `.npz` files."""

import dataclasses
import logging
import math
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor

from headwise.data.images import Images, ResidentImages, Splits, resident_images
from headwise.data.reading import check_expansion, one_line
from headwise.data.split import own_split
from headwise.data.split_names import FILLERS, split_of, words
from headwise.errors import UserError

logger = logging.getLogger("headwise")

IMAGE_KEYS = ("images", "image", "x")
LABEL_KEYS = ("labels", "label", "y")
"""The words for images and labels in the keys of an `.npz`, beside a word for the split."""
KINDS = dict.fromkeys(IMAGE_KEYS, "images") | dict.fromkeys(LABEL_KEYS, "labels")


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


def signed(labels: Iterable[Shaped[np.ndarray, "..."] | None]) -> bool:
    """Return whether a source's labels are −1 and 1 only, so that −1 is a class and not missing."""
    numbers = [v.ravel() for v in labels if v is not None and v.size and v.dtype.kind == "i"]
    return bool(numbers) and np.unique(np.concatenate(numbers)).tolist() == [-1, 1]


def as_labels(
    values: Shaped[np.ndarray, "..."], where: str, *, signed: bool = False
) -> tuple[Int64[Tensor, " n"] | None, tuple[str, ...]]:
    """Return labels, which are integers or strings, as indices into their sorted classes, and the
    names of the classes. A label that is empty or, unless `signed`, −1 is missing: its index is −1.
    None if all are missing."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "iubUSO":
        raise UserError(
            f"{where}: labels must be one integer or one string per image; "
            f"got {values.dtype} of shape {values.shape}"
        )
    classes, index = np.unique(values, return_inverse=True)
    empty = {"S": b"", "U": "", "O": ""}.get(classes.dtype.kind, -1)
    missing = np.zeros(len(classes), bool) if signed else classes == empty
    if missing.all():
        return None, ()
    place = np.where(missing, -1, np.cumsum(~missing) - 1)
    return torch.from_numpy(place[index].astype(np.int64)), tuple(
        map(str, classes[~missing].tolist())
    )


def from_arrays(
    images: Shaped[np.ndarray, "..."],
    labels: Shaped[np.ndarray, "..."] | None,
    where: str,
    *,
    signed: bool = False,
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
    return resident_images(pixels, *as_labels(labels, where, signed=signed), ids)


def open_npz(path: Path) -> Splits:
    """Return the arrays of an `.npz`, with class names from `classes`. A key has a word for images
    or labels (`IMAGE_KEYS`, `LABEL_KEYS`) and may have one for a split (`split_names`)."""
    must = f"{path} must be an .npz file of plain arrays"
    with one_line(must), path.open("rb") as opened, np.load(opened) as file:
        keys = _keys(file.files, path)
        used = {key for pair in keys.values() for key in pair if key} | {"classes"}
        for key in used & {*file.files}:
            _check_claim(file.zip, f"{key}.npy")
        arrays = {key: file[key] for key in file.files if key in used}
    parts: dict[str, Images] = {}
    minus = signed(arrays.get(labels) for _, labels in keys.values())
    for split, (images, labels) in keys.items():
        where = f"{path.name}:{images}"
        found = from_arrays(arrays[images], arrays.get(labels), where, signed=minus)
        parts[split] = _named(found, arrays)
    return own_split(parts, str(path), "by the keys of the arrays" if len(parts) > 1 else "")


def _keys(names: list[str], path: Path) -> dict[str, tuple[str, str]]:
    """Return the keys of images and labels ("" if there are none) of every split."""
    found: dict[tuple[str, str], tuple[int, str]] = {}
    unused = []
    extra = {name: [w for w in words(name) if w not in (*KINDS, *FILLERS)] for name in names}
    for name in sorted(names, key=lambda name: len(extra[name])):
        split = split_of(name)
        kinds = {KINDS[word] for word in words(name) if word in KINDS}
        key = (next(iter(kinds), ""), split or "train")
        least = len(extra[name]) - (split is not None)
        if (
            len(kinds) != 1
            or (split is None and extra[name])
            or (key in found and found[key][0] < least)
        ):
            unused.append(name)
        elif key in found:
            both = f"{found[key][1]} and {name}"
            raise UserError(
                f"{path} must hold one array of {key[1]} {key[0]}; got {both}: remove one"
            )
        else:
            found[key] = least, name
    if ("images", "train") not in found:
        raise UserError(
            f"{path} must hold images or x_train or train_images; "
            f"got {', '.join(names) or 'no arrays'}"
        )
    unused = [name for name in unused if name != "classes"]
    if unused:
        logger.warning("%s: not read: %s", path, ", ".join(unused))
    splits = [split for kind, split in found if kind == "images"]
    return {s: (found["images", s][1], found.get(("labels", s), (0, ""))[1]) for s in splits}


def _check_claim(file: zipfile.ZipFile, member: str) -> None:
    """Raise an error if an array's header claims more than its bytes, or if those unpack to far
    more than images do."""
    info = file.getinfo(member)
    check_expansion(info.compress_size, info.file_size)
    with file.open(info) as array:
        version = np.lib.format.read_magic(array)
        if version == (1, 0):
            shape, _, kind = np.lib.format.read_array_header_1_0(array)
        else:
            shape, _, kind = np.lib.format.read_array_header_2_0(array)
        claimed, there = math.prod(shape) * kind.itemsize, info.file_size - array.tell()
    if kind.hasobject:
        raise ValueError("the array holds Python objects")
    if claimed != there:
        raise ValueError(f"{member} claims {claimed} bytes and holds {there}")


def _named(images: ResidentImages, arrays: Mapping[str, np.ndarray]) -> ResidentImages:
    """Replace class numbers by class names if the file has names."""
    if "classes" not in arrays or images.labels is None:
        return images
    names = arrays["classes"].tolist()
    if not isinstance(names, list):
        raise UserError(f"classes must be a list of names; got {names!r}")
    numbers = [int(name) if name.isdecimal() else -1 for name in images.classes]
    if not all(0 <= number < len(names) for number in numbers):
        raise UserError(
            f"classes must hold a name at the index of every label; got {len(names)} names "
            f"for the labels {', '.join(images.classes[:10])}"
        )
    return dataclasses.replace(images, classes=tuple(str(names[number]) for number in numbers))
