"""The listing of a folder. A long listing is kept on disk, and later only the folders are checked
and not every file. A damaged listing never stops a run: it is made again."""

import json
import logging
import os
import time
import zipfile
from pathlib import Path

import numpy as np
import torch

from headwise.data import cache
from headwise.data.folder import Folder, FolderSource, stamp_of, walk
from headwise.data.images import ImageFiles, Splits, fingerprint
from headwise.data.layout import EXTENSIONS, arrange
from headwise.data.names import as_names, contiguous_names
from headwise.files import write_atomically

KEEP_FROM = 100_000
"""The least number of images for which a listing is kept. A shorter listing takes a second, so it
is made each time from the size and modification time of every file."""
QUIET_NS = 2_000_000_000
"""If a folder changed within this time before it was listed, it may change again with the same
modification time, so the listing is not kept."""

logger = logging.getLogger("headwise")


def list_folder(root: Path, keep: bool) -> Splits | None:
    """Return the images below `root`, split and labelled by folder, or None if there are none. Ids
    are relative to `root`; links are followed. `keep` saves a long listing for `kept_listing`."""
    start = time.time_ns()
    folders = list(walk(root))
    images = sorted(image for folder in folders for image in folder.images)
    left_out = sorted(file for folder in folders for file in folder.left_out)
    if not images:
        return None
    # ascii() escapes the bytes of names that are not UTF-8.
    content = ascii([(path, size) for path, size, _ in images]).encode()
    stamp = ascii((str(root.resolve()), images)).encode()
    source = FolderSource(root, fingerprint(content), fingerprint(stamp))
    splits = arrange(source, [path for path, _, _ in images], str(root), left_out)
    last_change = max(folder.stamp[0] for folder in folders)
    if keep and len(images) >= KEEP_FROM and last_change < start - QUIET_NS:
        _keep(root, source, folders, splits)
    return splits


def kept_listing(root: Path) -> Splits | None:
    """Return the listing that `list_folder` kept, or None if there is none or a folder changed."""
    path = _path(root)
    try:
        with path.open("rb") as file, np.load(file) as npz:
            arrays = {name: npz[name] for name in npz.files}  # this also checks their CRC-32
        metadata = json.loads(arrays["facts"].tobytes())
        folders = contiguous_names(arrays["folders"], arrays["folders.ends"])
        stamps = [stamp_of(os.stat(root / folder)) for folder in folders]
        if not np.array_equal(stamps, arrays["stamps"]):
            return None
        source = FolderSource(root, metadata["content"], metadata["stamp"])
        splits = [_images(source, name, arrays, s) for name, s in metadata["splits"].items()]
        return Splits(splits[0], splits[1] if len(splits) > 1 else None)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("%s is damaged (%s): listing %s again", path, error, root)
        return None


def _keep(root: Path, source: FolderSource, folders: list[Folder], splits: Splits) -> None:
    names = as_names(folder.path for folder in folders)
    arrays = {
        "folders": names.text,
        "folders.ends": names.ends,
        "stamps": np.array([folder.stamp for folder in folders]),
    }
    described = {}
    for name, images in zip(("train", "test"), splits, strict=True):
        if images is not None:
            described[name] = {
                "classes": images.classes,
                "fingerprint": images.fingerprint,
                "split_rule": images.split_rule,
                "left_out": images.left_out,
            }
            arrays |= {name: images.ids.text, f"{name}.ends": images.ids.ends}
            if images.labels is not None:
                arrays[f"{name}.labels"] = images.labels.numpy()
    metadata = {"content": source.content, "stamp": source.stamp, "splits": described}
    arrays["facts"] = np.frombuffer(json.dumps(metadata).encode(), np.uint8)

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    try:
        write_atomically(_path(root), write)
    except OSError as error:
        logger.warning("the listing of %s is not kept in %s: %s", root, cache.folder(), error)


def _images(
    source: FolderSource, name: str, arrays: dict[str, np.ndarray], described: dict
) -> ImageFiles:
    ids = contiguous_names(arrays[name], arrays[f"{name}.ends"])
    array, classes = arrays.get(f"{name}.labels"), tuple(described["classes"])
    labels = None if array is None else torch.from_numpy(array)
    return ImageFiles(
        *(source, labels, classes, ids, {}, (), described["fingerprint"]),
        split_rule=described["split_rule"],
        left_out=tuple((path, reason) for path, reason in described["left_out"]),
    )


def _path(root: Path) -> Path:
    key = fingerprint(ascii((cache.VERSION, EXTENSIONS, str(root.resolve()))).encode())
    return cache.folder() / f"listing-{key}.npz"
