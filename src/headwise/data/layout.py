"""Paths to splits and labels: the folders' names say both."""

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
    """Whether a path inside a source is that of an image, by its ending; hidden ones are not."""
    if any(map(is_hidden, path.split("/"))):
        return False
    return path.rpartition(".")[2].lower() in EXTENSIONS


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is passed over."""
    return name.startswith(".") or name == IGNORED_FOLDER


def arrange(source: Source, paths: Sequence[str], where: str) -> Splits:
    """Image paths (with `/`) to splits. In this order:

    - folders around everything are passed over, however many;
    - a folder `train` beside `test`, `val`, `valid` or `validation` (any case) is the source's own
      split; what lies elsewhere is not used;
    - the first folder names the class, and what lies deeper belongs to it;
    - images beside such folders, or none such, mean no labels.
    """
    if not paths:
        raise UserError(f"{where} holds no images; files must end in {', '.join(EXTENSIONS)}")
    paths = sorted(paths)
    # What the first and the last of sorted paths share, all share.
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
            logger.warning("%s: no labels, since %d images lie beside its folders", where, loose)
        return image_files(source, paths, None, ())
    classes = tuple(sorted(set(folders)))
    place = {name: i for i, name in enumerate(classes)}
    labels = torch.tensor([place[folder] for folder in folders])
    return image_files(source, paths, labels, classes)


def _folder(path: str, start: int) -> str:
    """The folder whose name begins at `start`; empty where the file's own does."""
    return path[start : max(path.find("/", start), start)]
