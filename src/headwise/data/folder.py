"""A folder of image files."""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from headwise.data.layout import is_hidden, is_image, why_not

Stamp = tuple[int, int, int]
"""A folder's modification time in ns, inode and size. It changes when entries are added, removed or
renamed, but not when a file is rewritten."""


@dataclass(frozen=True)
class FolderSource:
    """Image files below `root`."""

    root: Path
    content: str
    stamp: str

    def open(self, id: str) -> io.BufferedIOBase:
        return open(self.root / id, "rb")


class Folder(NamedTuple):
    """A folder and the images directly in it."""

    path: str
    """The path relative to the start of the walk."""
    stamp: Stamp
    images: list[tuple[str, int, int]]
    """Path, size in bytes and modification time in ns of every image, unordered."""
    left_out: list[tuple[str, str]]
    """Path of everything else, and why it is not read."""


def walk(
    folder: Path, prefix: str = "", above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[Folder]:
    """Yield `folder` and all folders below it. `above` holds the folders that contain this one, so
    that a link to one of them is not followed forever."""
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    images, left_out, subfolders = [], [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir() and not is_hidden(entry.name):
                subfolders.append(entry)
            elif is_image(entry.name) and entry.is_file():
                file = entry.stat()
                images.append((prefix + entry.name, file.st_size, file.st_mtime_ns))
            else:
                gone = entry.is_symlink() and not os.path.exists(entry.path)
                reason = "a link to nothing" if gone else why_not(entry.name)
                left_out.append((prefix + entry.name, reason))
    yield Folder(prefix, stamp_of(status), images, left_out)
    for entry in subfolders:
        yield from walk(Path(entry.path), f"{prefix}{entry.name}/", above | {identity})


def stamp_of(status: os.stat_result) -> Stamp:
    return status.st_mtime_ns, status.st_ino, status.st_size
