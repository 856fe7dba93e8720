"""Decode image files into memory if they have equal sizes and fit, and cache the result."""

import dataclasses
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import PIL
import torch

from headwise.data import cache
from headwise.data.cache import Decoded
from headwise.data.config import Fit
from headwise.data.decode import decode, header_size
from headwise.data.images import ImageFiles, Images, fingerprint, pixel_digest, resident_images
from headwise.data.marks import file_mark
from headwise.data.quiet import hushed, quiet
from headwise.data.unreadable import Tolerance

CHUNK = 64  # images per task: few compared to a data set, many compared to a task's overhead

logger = logging.getLogger("headwise")


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """Whether and how images are decoded into memory; see `DataConfig`."""

    fit: Fit
    resize: int | None
    resident_mib: int
    max_bad_fraction: float
    cache: bool
    workers: int


def decode_into_memory(images: ImageFiles, settings: DecodeSettings, where: str) -> Images:
    """Return `images` decoded in memory if `settings` allow it, else as files. Unreadable images
    are left out. Raises `UserError` if they are more than `max_bad_fraction`."""
    if settings.resize is not None or settings.fit != "crop":
        # A crop has the digest that it had before there was a choice.
        words = [str(settings.resize), *([] if settings.fit == "crop" else [settings.fit])]
        digest = fingerprint(images.fingerprint.encode(), *(word.encode() for word in words))
        images = dataclasses.replace(
            images, resize=settings.resize, fit=settings.fit, fingerprint=digest
        )
    key = _key(images, settings)
    cached = cache.load(key) if settings.cache else None
    decoded = _decoded(images, settings, where) if cached is None else cached
    skipped = tuple((images.ids[i], reason) for i, reason in sorted(decoded.unreadable.items()))
    tolerance = Tolerance(where, len(images), settings.max_bad_fraction)
    tolerance.check(dict(skipped))
    tolerance.say(dict(skipped), "skipped")
    images = dataclasses.replace(images, tolerance=tolerance, marks=decoded.marks)
    if settings.cache and cached is None:
        cache.save(key, decoded)
    if skipped:
        readable = torch.ones(len(images), dtype=torch.bool)
        readable[list(decoded.unreadable)] = False
        images = dataclasses.replace(images.select(readable.nonzero().flatten()), skipped=skipped)
    if decoded.pixels is None:
        return images
    resident = resident_images(
        decoded.pixels, images.labels, images.classes, images.ids, digest=decoded.digest
    )
    return dataclasses.replace(
        resident,
        skipped=skipped,
        split_rule=images.split_rule,
        left_out=images.left_out,
        marks=images.marks,
        groups=images.groups,
    )


def _key(images: ImageFiles, settings: DecodeSettings) -> str:
    return fingerprint(
        repr((cache.VERSION, PIL.__version__, images.resize, settings.resident_mib)).encode(),
        images.source.stamp.encode(),
        images.fingerprint.encode(),  # depends on which images of the source are selected
    )


def _decoded(images: ImageFiles, settings: DecodeSettings, where: str) -> Decoded:
    logger.info("reading %d images", len(images))
    with quiet(), hushed(where, logging.WARNING):
        decoded = _decode_all(images, settings)
        return _check_headers(images, settings.workers) if decoded is None else decoded


def _decode_all(images: ImageFiles, settings: DecodeSettings) -> Decoded | None:
    """Decode all images. Returns None as soon as they turn out to be too large or of unequal sizes;
    at first, all are assumed to have the size of the first one."""
    unreadable: dict[int, str] = {}
    shape = _first_shape(images, unreadable)
    marks = np.zeros(len(images), np.uint64)
    if shape is None:
        return Decoded(None, None, unreadable, marks)
    if len(images) * 3 * shape[0] * shape[1] > settings.resident_mib * 2**20:
        return None
    pixels = np.empty((len(images), 3, *shape), np.uint8)
    unequal = threading.Event()

    def decode_image(i: int) -> None:
        if unequal.is_set():
            return
        try:
            with images.source.open(images.ids[i]) as file:
                marks[i] = file_mark(file)
                picture = np.asarray(decode(file, images.resize, fit=images.fit))
        except OSError as error:
            unreadable[i] = str(error)
            return
        if picture.shape[:2] != shape:
            unequal.set()
            return
        pixels[i] = picture.transpose(2, 0, 1)

    _in_threads(decode_image, len(images), settings.workers)
    if unequal.is_set():
        return None
    if unreadable:
        pixels = np.delete(pixels, sorted(unreadable), axis=0)
    tensor = torch.from_numpy(pixels)
    return Decoded(tensor, pixel_digest(tensor), unreadable, marks)


def _first_shape(images: ImageFiles, unreadable: dict[int, str]) -> tuple[int, int] | None:
    """Return height and width of the first readable image; add those before to `unreadable`."""
    for i, id in enumerate(images.ids):
        try:
            with images.source.open(id) as file:
                width, height = decode(file, images.resize, fit=images.fit).size
            return height, width
        except OSError as error:
            unreadable[i] = str(error)
    return None


def _check_headers(images: ImageFiles, workers: int) -> Decoded:
    unreadable: dict[int, str] = {}
    marks = np.zeros(len(images), np.uint64)

    def check_image(i: int) -> None:
        try:
            with images.source.open(images.ids[i]) as file:
                marks[i] = file_mark(file)
                header_size(file)
        except OSError as error:
            unreadable[i] = str(error)

    _in_threads(check_image, len(images), workers)
    return Decoded(None, None, unreadable, marks)


def _in_threads(function: Callable[[int], None], n: int, workers: int) -> None:
    """Call `function(i)` for all i < n. Pillow releases Python's lock while it decodes."""

    def call(start: int) -> None:
        for i in range(start, min(start + CHUNK, n)):
            function(i)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(call, range(0, n, CHUNK)))
