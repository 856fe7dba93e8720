"""A folder of image files."""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from headwise.data.layout import is_hidden, is_image

Stamp = tuple[int, int, int]
"""Of a folder: modification time in ns, inode, size. Entries that come, go or get another name
change it; entries that are rewritten do not."""


@dataclass(frozen=True)
class FolderSource:
    root: Path
    content: str
    stamp: str

    def open(self, id: str) -> io.BufferedIOBase:
        return open(self.root / id, "rb")


class Folder(NamedTuple):
    path: str
    """Relative to where the walk began."""
    stamp: Stamp
    images: list[tuple[str, int, int]]
    """Path, size in bytes and modification time in ns of every image right in it, in no order."""


def walk(
    folder: Path, prefix: str = "", above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[Folder]:
    """`folder` and all folders below it. `above`: the folders around this one, so that a link to
    one of them is not followed for ever."""
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    images = []
    below = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir() and not is_hidden(entry.name):
                below.append(entry)
            elif is_image(entry.name) and entry.is_file():
                of = entry.stat()
                images.append((prefix + entry.name, of.st_size, of.st_mtime_ns))
    yield Folder(prefix, stamp_of(status), images)
    for entry in below:
        yield from walk(Path(entry.path), f"{prefix}{entry.name}/", above | {here})


def stamp_of(status: os.stat_result) -> Stamp:
    return status.st_mtime_ns, status.st_ino, status.st_size
