"""From paths to splits and labels: both come from the names of the folders."""

import dataclasses
import logging
import os
from collections.abc import Sequence

import torch

from headwise.data.account import counted
from headwise.data.images import ImageFiles, Images, Source, Splits, image_files
from headwise.data.split import own_split
from headwise.data.split_names import UNLABELLED, folder_splits, split_of, words
from headwise.errors import UserError
from headwise.files import plain_text

EXTENSIONS = ("jpg", "jpeg", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm")
IGNORED_FOLDER = "__MACOSX"
PICTURES = ("images", "image", "imgs", "img", "jpegimages", "photos", "pictures", "rgb", "inputs")
"""Words for a folder of pictures that another folder belongs to."""
COMPANIONS = (
    *("masks", "mask", "annotations", "annotation", "labels", "segmentation", "segmentations"),
    *("groundtruth", "gt", "depth", "segmentationclass", "segmentationobject", "thumbnails"),
)
"""Words for a folder whose files belong to pictures in the folder beside it."""

logger = logging.getLogger("headwise")


def is_image(path: str) -> bool:
    """Return whether a path in a source has the ending of an image and is not hidden."""
    if any(map(is_hidden, path.split("/"))):
        return False
    return path.rpartition(".")[2].lower() in EXTENSIONS


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is ignored."""
    return name.startswith(".") or name == IGNORED_FOLDER


def why_not(path: str) -> str:
    """Return why a path of which `is_image` is false, or which is no file, is not read."""
    if any(map(is_hidden, path.split("/"))):
        return "hidden"
    if is_image(path):
        return "not a file"
    stem, dot, ending = path.rpartition("/")[2].rpartition(".")
    return f"ends in .{ending.lower()}" if stem and dot else "has no ending"


def no_images(where: str, left_out: Sequence[tuple[str, str]]) -> UserError:
    found = f"; got {counted(left_out)}" if left_out else ""
    return UserError(f"{where} holds no images; files must end in {', '.join(EXTENSIONS)}{found}")


def arrange(
    source: Source,
    paths: Sequence[str],
    where: str,
    left_out: Sequence[tuple[str, str]] = (),
) -> Splits:
    """Turn image paths (with `/`) into splits, by these rules in this order:

    - outer folders that contain everything are ignored;
    - folders with the names of splits (`split_names`) are the splits;
    - folders around everything in a split are ignored;
    - the next folder is the class of all files below it;
    - if images lie beside class folders, or there are no class folders, there are no labels.

    `left_out` are the files that are not images, and why.
    """
    if not paths:
        raise no_images(where, left_out)
    paths = sorted(paths)
    start = _outer(paths)
    where = f"{where}/{paths[0][:start]}".rstrip("/")
    tops = [_folder(path, start) for path in paths]
    names = folder_splits({*tops} - {""}, where)
    if names.remark:
        logger.warning("%s: %s", where, names.remark)
    rule, parts, rest = "", {"train": paths}, list(left_out)
    if names.roles:
        rule, parts = "by folder names", {}
        for path, top in zip(paths, tops, strict=True):
            if top in names.roles:
                parts.setdefault(names.roles[top], []).append(path)
            else:
                rest.append((path, "beside the folders of the splits"))
        if names.aside:
            logger.warning("%s: not used, beside the splits: %s", where, ", ".join(names.aside))
    splits: dict[str, Images] = {}
    for split in sorted(parts, key=lambda split: split != "train"):
        known = splits["train"].classes if splits else ()
        starts = [path.find("/", start) + 1 if rule else start for path in parts[split]]
        folders = _class_folders(parts[split], starts, known)
        here = f"{where}/{split}" if rule else where
        splits[split] = _labelled(source, parts[split], folders, here)
    train, test = own_split(splits, where, rule)
    return Splits(dataclasses.replace(train, left_out=tuple(rest)), test)


def _class_folders(paths: list[str], starts: list[int], known: tuple[str, ...]) -> list[str]:
    """Return the class of every path, the name of a folder, or "". A folder around everything is
    passed over. Of test images, only if the classes `known` of the training images follow."""
    first = folders = [_folder(path, start) for path, start in zip(paths, starts, strict=True)]
    while plain_text(folders[0]) not in ("", *known) and len({*folders}) == 1:
        starts = [start + len(folders[0]) + 1 for start in starts]
        folders = [_folder(path, start) for path, start in zip(paths, starts, strict=True)]
    names, own = (list(map(plain_text, found)) for found in (folders, first))
    return names if not known or {*names} & {*known} else own


def _labelled(source: Source, paths: list[str], folders: list[str], where: str) -> ImageFiles:
    loose = folders.count("")
    if loose:
        if loose < len(paths):
            logger.warning("%s: no labels, because %d images lie beside its folders", where, loose)
        return image_files(source, paths, None, ())
    _refuse_companions({*folders}, where)
    _say_inner_splits(paths, folders, where)
    missing = {name for name in {*folders} if name.lower() in UNLABELLED}
    classes = tuple(sorted({*folders} - missing))
    index = {name: i for i, name in enumerate(classes)} | dict.fromkeys(missing, -1)
    return image_files(source, paths, torch.tensor([index[name] for name in folders]), classes)


def _refuse_companions(folders: set[str], where: str) -> None:
    """Raise `UserError` if the folders are pictures and what belongs to them, not classes."""
    companions = sorted(name for name in folders if {*words(name)} & {*COMPANIONS})
    pictures = sorted(
        name
        for name in folders
        if name not in companions and ({*words(name)} & {*PICTURES} or split_of(name))
    )
    if companions and pictures and len(companions) + len(pictures) == len(folders):
        raise UserError(
            f"{where}: {', '.join(pictures)} and {', '.join(companions)} are not classes: move "
            f"{', '.join(companions)} elsewhere, or give only a folder of pictures as the images"
        )


def _say_inner_splits(paths: list[str], folders: list[str], where: str) -> None:
    """Warn if class folders hold folders with the names of splits."""
    inner: set[str] = set()
    for path, folder in zip(paths, folders, strict=True):
        inner.add(f"/{path}".partition(f"/{folder}/")[2].rpartition("/")[0].partition("/")[0])
    found = {split: name for name in sorted(inner) if (split := split_of(name))}
    if "train" in found and len(found) > 1:
        logger.warning(
            "%s: the folders %s inside classes are not read as splits: all their images are "
            "training images of that class",
            where,
            ", ".join(found.values()),
        )


def _outer(paths: Sequence[str]) -> int:
    """Return where the names begin that follow the folders common to all sorted paths."""
    # A prefix of the first and the last of the sorted paths is a prefix of all.
    shared = os.path.commonprefix([paths[0], paths[-1]])  # noqa: RUF071, characters are meant
    return shared.rfind("/") + 1


def _folder(path: str, start: int) -> str:
    """Return the folder whose name begins at `start`, or "" if the file's name begins there."""
    return path[start : max(path.find("/", start), start)]
