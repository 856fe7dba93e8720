"""The listing of a folder, kept on disk where it is long: the next opening looks at the folders
alone, not at every file. Never fatal: a damaged one is made again."""

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
"""Images from which on a listing is kept. A shorter one takes a second, so that every file's size
and time of modification are looked at each time."""
QUIET_NS = 2_000_000_000
"""A folder that changed so shortly before it was listed may have changed again since, with the
same time of modification: such a listing is not kept."""

logger = logging.getLogger("headwise")


def list_folder(root: Path, keep: bool) -> Splits | None:
    """The images below `root`, as ids relative to it, arranged by folder; None where there is none.
    Links are followed. `keep`: for `kept_listing`."""
    began = time.time_ns()
    folders = list(walk(root))
    found = sorted(image for folder in folders for image in folder.images)
    if not found:
        return None
    # ascii() escapes the bytes of names that are not UTF-8.
    content = ascii([(path, size) for path, size, _ in found]).encode()
    stamp = ascii((str(root.resolve()), found)).encode()
    source = FolderSource(root, fingerprint(content), fingerprint(stamp))
    splits = arrange(source, [path for path, _, _ in found], str(root))
    changed = max(folder.stamp[0] for folder in folders)
    if keep and len(found) >= KEEP_FROM and changed < began - QUIET_NS:
        _keep(root, source, folders, splits)
    return splits


def kept_listing(root: Path) -> Splits | None:
    """What `list_folder` kept, if since then no folder changed."""
    path = _path(root)
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            arrays = {name: file[name] for name in file.files}  # checks their CRC-32
        facts = json.loads(arrays["facts"].tobytes())
        folders = contiguous_names(arrays["folders"], arrays["folders.ends"])
        stamps = [stamp_of(os.stat(root / folder)) for folder in folders]
        if not np.array_equal(stamps, arrays["stamps"]):
            return None
        source = FolderSource(root, facts["content"], facts["stamp"])
        splits = [_unpacked(source, name, arrays, fact) for name, fact in facts["splits"].items()]
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
    facts = {"content": source.content, "stamp": source.stamp, "splits": {}}
    for name, images in zip(("train", "test"), splits, strict=True):
        if images is not None:
            facts["splits"][name] = {"classes": images.classes, "fingerprint": images.fingerprint}
            arrays |= {name: images.ids.text, f"{name}.ends": images.ids.ends}
            if images.labels is not None:
                arrays[f"{name}.labels"] = images.labels.numpy()
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    try:
        write_atomically(_path(root), write)
    except OSError as error:
        logger.warning("the listing of %s is not kept in %s: %s", root, cache.folder(), error)


def _unpacked(
    source: FolderSource, name: str, arrays: dict[str, np.ndarray], fact: dict
) -> ImageFiles:
    ids = contiguous_names(arrays[name], arrays[f"{name}.ends"])
    labels = arrays.get(f"{name}.labels")
    given = None if labels is None else torch.from_numpy(labels)
    return ImageFiles(source, given, tuple(fact["classes"]), ids, {}, (), fact["fingerprint"])


def _path(root: Path) -> Path:
    key = fingerprint(ascii((cache.VERSION, EXTENSIONS, str(root.resolve()))).encode())
    return cache.folder() / f"listing-{key}.npz"
