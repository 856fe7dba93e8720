"""Paths to splits and labels: the folders' names say both."""

import logging
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
    parts = [path.split("/") for path in sorted(paths)]
    depth = 0
    while all(len(p) > depth + 1 for p in parts) and len({p[depth] for p in parts}) == 1:
        depth += 1
    folders = {p[depth].lower() for p in parts if len(p) > depth + 1}
    names = [name for name in ("train", *TEST_NAMES) if name in folders]
    if names[:1] != ["train"] or len(names) == 1:
        return own_split({"train": _labelled(source, parts, depth, where)}, where)
    splits: dict[str, Images] = {}
    for name in names:
        inside = [p for p in parts if len(p) > depth + 1 and p[depth].lower() == name]
        splits[name] = _labelled(source, inside, depth + 1, f"{where}/{name}")
    return own_split(splits, where)


def _labelled(source: Source, parts: list[list[str]], depth: int, where: str) -> ImageFiles:
    ids = ["/".join(p) for p in parts]
    loose = sum(len(p) == depth + 1 for p in parts)
    if loose:
        if loose < len(parts):
            logger.warning("%s: no labels, since %d images lie beside its folders", where, loose)
        return image_files(source, ids, None, ())
    classes = tuple(sorted({p[depth] for p in parts}))
    place = {name: i for i, name in enumerate(classes)}
    labels = torch.tensor([place[p[depth]] for p in parts])
    return image_files(source, ids, labels, classes)
