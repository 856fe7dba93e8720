"""A cache of decoded images on disk. It never stops a run: a damaged entry is removed and made
again, and if an entry cannot be written, there is a warning."""

import json
import logging
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8, UInt64
from torch import Tensor

from headwise.data.images import fingerprint, pixel_digest
from headwise.files import read_json, write_atomically

VERSION = 3
"""Part of every key. Raise it when decoding changes."""

logger = logging.getLogger("headwise")


class Decoded(NamedTuple):
    """The result of decoding a set of files."""

    pixels: UInt8[Tensor, "n 3 h w"] | None
    """The readable images. None if they differ in size or are too large, and so stay files."""
    digest: str | None
    """`pixel_digest` of the pixels."""
    unreadable: dict[int, str]
    """The reasons by position."""
    marks: UInt64[np.ndarray, " n"]
    """Of all images, also of those that are unreadable."""


def folder() -> Path:
    """Return $HEADWISE_CACHE, or else `headwise` in $XDG_CACHE_HOME or in ~/.cache."""
    if path := os.environ.get("HEADWISE_CACHE"):
        return Path(path)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headwise"


def load(key: str) -> Decoded | None:
    """Return the entry for `key`, or None if there is none. A damaged entry is removed."""
    entry = folder() / key
    if not entry.is_dir():
        return None
    try:
        metadata = read_json(entry / "entry.json")
        unreadable = {int(position): reason for position, reason in metadata["bad"].items()}
        marks, pixels, digest = np.load(entry / "marks.npy"), None, None
        if metadata["digest"] is not None:
            pixels = torch.from_numpy(np.load(entry / "pixels.npy"))
            digest = pixel_digest(pixels)
        if (digest, fingerprint(marks)) == (metadata["digest"], metadata["marks"]):
            return Decoded(pixels, digest, unreadable, marks)
        reason = "the checksum differs"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        reason = str(error)
    logger.warning("the cache entry %s is damaged (%s): decoding again", entry, reason)
    shutil.rmtree(entry, ignore_errors=True)
    return None


def save(key: str, decoded: Decoded) -> None:
    """Write the entry, unless another process has written it already."""
    entry = folder() / key

    def write(temporary: Path) -> None:
        temporary.mkdir()
        if decoded.pixels is not None:
            np.save(temporary / "pixels.npy", decoded.pixels.numpy())
        np.save(temporary / "marks.npy", decoded.marks)
        metadata = {
            "version": VERSION,
            "digest": decoded.digest,
            "bad": decoded.unreadable,
            "marks": fingerprint(decoded.marks),
        }
        (temporary / "entry.json").write_text(json.dumps(metadata), encoding="utf-8")

    try:
        write_atomically(entry, write)
    except OSError as error:
        if not entry.is_dir():
            logger.warning("decoded images are not cached in %s: %s", folder(), error)
