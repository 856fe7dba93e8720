"""From paths to splits and labels: both come from the names of the folders."""

import logging
import os
from collections.abc import Sequence

import torch

from headwise.data.images import ImageFiles, Images, Source, Splits, image_files
from headwise.data.split import TEST_NAMES, own_split
from headwise.errors import UserError

EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm")
IGNORED_FOLDER = "__MACOSX"

logger = logging.getLogger("headwise")


def is_image(path: str) -> bool:
    """Return whether a path in a source has the ending of an image and is not hidden."""
    if any(map(is_hidden, path.split("/"))):
        return False
    return path.rpartition(".")[2].lower() in EXTENSIONS


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is ignored."""
    return name.startswith(".") or name == IGNORED_FOLDER


def arrange(source: Source, paths: Sequence[str], where: str) -> Splits:
    """Turn image paths (with `/`) into splits, by these rules in this order:

    - outer folders that contain everything are ignored;
    - folders `train` and `test`, `val`, `valid` or `validation` (in any case) are the splits, and
      all other files are not used;
    - the next folder is the class of all files below it;
    - if images lie beside class folders, or there are no class folders, there are no labels.
    """
    if not paths:
        raise UserError(f"{where} holds no images; files must end in {', '.join(EXTENSIONS)}")
    paths = sorted(paths)
    # A prefix of the first and the last of the sorted paths is a prefix of all.
    shared = os.path.commonprefix([paths[0], paths[-1]])  # noqa: RUF071, characters are meant
    start = shared.rfind("/") + 1
    tops = [_folder(path, start) for path in paths]
    folders = {top.lower() for top in set(tops)}
    names = [name for name in ("train", *TEST_NAMES) if name in folders]
    if names[:1] != ["train"] or len(names) == 1:
        return own_split({"train": _labelled(source, paths, start, where)}, where)
    splits: dict[str, Images] = {}
    for name in names:
        inside = [path for path, top in zip(paths, tops, strict=True) if top.lower() == name]
        splits[name] = _labelled(source, inside, start + len(name) + 1, f"{where}/{name}")
    return own_split(splits, where)


def _labelled(source: Source, paths: list[str], start: int, where: str) -> ImageFiles:
    folders = [_folder(path, start) for path in paths]
    loose = folders.count("")
    if loose:
        if loose < len(paths):
            logger.warning("%s: no labels, because %d images lie beside its folders", where, loose)
        return image_files(source, paths, None, ())
    classes = tuple(sorted(set(folders)))
    index = {name: i for i, name in enumerate(classes)}
    labels = torch.tensor([index[folder] for folder in folders])
    return image_files(source, paths, labels, classes)


def _folder(path: str, start: int) -> str:
    """Return the folder whose name begins at `start`, or "" if the file's name begins there."""
    return path[start : max(path.find("/", start), start)]
