"""Marks: 64 bits of an image's content, by which an image is known under another name or in another
place."""

import hashlib
import io

import numpy as np
from jaxtyping import UInt64

from headwise.data.images import Images, ResidentImages
from headwise.data.names import digests

PART_BYTES = 4096
"""Read from the start, the middle and the end of a file. That is little enough to mark a whole data
set in the pass that checks its headers."""


def file_mark(file: io.BufferedIOBase) -> int:
    """Return the mark of an encoded image: of its size and three parts of its bytes."""
    size = file.seek(0, io.SEEK_END)
    digest = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=8)
    for place in (0, (size - PART_BYTES) // 2, size - PART_BYTES):
        file.seek(max(place, 0))
        digest.update(file.read(PART_BYTES))
    file.seek(0)
    return int.from_bytes(digest.digest(), "little")


def marks_of(images: Images) -> UInt64[np.ndarray, " n"]:
    """Return the marks of images: of their files where they were opened from files, otherwise of
    their pixels."""
    if images.marks is not None:
        return images.marks
    if isinstance(images, ResidentImages):
        rows = images.pixels.flatten(1).cpu().contiguous().numpy()
        return digests(row.data for row in rows)
    marks = np.zeros(len(images), np.uint64)
    for i, id in enumerate(images.ids):
        with images.source.open(id) as file:
            marks[i] = file_mark(file)
    return marks
