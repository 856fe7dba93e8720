"""A folder of image files."""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headwise.data.images import Splits, fingerprint
from headwise.data.layout import arrange, is_hidden, is_image


@dataclass(frozen=True)
class FolderSource:
    root: Path
    content: str
    stamp: str

    def open(self, id: str) -> io.BufferedIOBase:
        return open(self.root / id, "rb")


def list_folder(root: Path) -> Splits:
    """The images below `root`, as ids relative to it, arranged by folder. Links are followed."""
    found = sorted(walk(root))
    # ascii() escapes the bytes of names that are not UTF-8.
    content = ascii([(path, size) for path, size, _ in found]).encode()
    stamp = ascii((str(root.resolve()), found)).encode()
    source = FolderSource(root, fingerprint(content), fingerprint(stamp))
    return arrange(source, [path for path, _, _ in found], str(root))


def walk(
    folder: Path, prefix: str = "", above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[str, int, int]]:
    """Path, size in bytes and modification time in ns of every image, in no order. `above`: the
    folders around this one, so that a link to one of them is not followed for ever."""
    here = folder.stat()
    if (here.st_dev, here.st_ino) in above:
        return
    above = above | {(here.st_dev, here.st_ino)}
    with os.scandir(folder) as entries:
        for entry in entries:
            path = prefix + entry.name
            if entry.is_dir() and not is_hidden(entry.name):
                yield from walk(Path(entry.path), f"{path}/", above)
            elif is_image(path) and entry.is_file():
                status = entry.stat()
                yield path, status.st_size, status.st_mtime_ns
