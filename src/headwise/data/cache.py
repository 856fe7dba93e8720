"""Decoded image sets on disk, so that the next opening decodes nothing.

Never fatal: a damaged entry is dropped and decoded again; one that cannot be written is a warning.
"""

import json
import logging
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from headwise.data.images import pixel_digest
from headwise.files import read_json, write_atomically

VERSION = 1
"""Goes into every key: raise it when decoding changes."""

logger = logging.getLogger("headwise")


class Decoded(NamedTuple):
    pixels: UInt8[Tensor, "n 3 h w"] | None
    """Without the bad images; None: the images differ in size, or are too large, and stay files."""
    digest: str | None
    """`pixel_digest` of the pixels."""
    bad: dict[int, str]
    """Positions of unreadable images, with the reasons."""


def folder() -> Path:
    """Where entries lie: $HEADWISE_CACHE, or `headwise` in $XDG_CACHE_HOME or in ~/.cache."""
    if own := os.environ.get("HEADWISE_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headwise"


def load(key: str) -> Decoded | None:
    """The entry under `key`; None where there is none, or a damaged one, which is removed."""
    entry = folder() / key
    if not entry.is_dir():
        return None
    try:
        facts = read_json(entry / "entry.json")
        bad = {int(position): reason for position, reason in facts["bad"].items()}
        if facts["digest"] is None:
            return Decoded(None, None, bad)
        pixels = torch.from_numpy(np.load(entry / "pixels.npy"))
        digest = pixel_digest(pixels)
        if digest == facts["digest"]:
            return Decoded(pixels, digest, bad)
        reason = "checksum differs"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        reason = str(error)
    logger.warning("cache entry %s is damaged (%s): decoding again", entry, reason)
    shutil.rmtree(entry, ignore_errors=True)
    return None


def save(key: str, decoded: Decoded) -> None:
    """Write the entry, unless another process was first."""
    entry = folder() / key

    def write(temporary: Path) -> None:
        temporary.mkdir()
        if decoded.pixels is not None:
            np.save(temporary / "pixels.npy", decoded.pixels.numpy())
        facts = {"version": VERSION, "digest": decoded.digest, "bad": decoded.bad}
        (temporary / "entry.json").write_text(json.dumps(facts), encoding="utf-8")

    try:
        write_atomically(entry, write)
    except OSError as error:
        if not entry.is_dir():
            logger.warning("decoded images are not cached in %s: %s", folder(), error)
