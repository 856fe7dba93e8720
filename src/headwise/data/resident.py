"""Image files to pixels in memory, where they have one size and fit; decoded once, then cached."""

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
from headwise.data.decode import check_header, decode, quiet
from headwise.data.images import ImageFiles, Images, fingerprint, pixel_digest, resident_images
from headwise.errors import UserError

CHUNK = 64  # images a task: small beside a set, large beside the cost of a task

logger = logging.getLogger("headwise")


@dataclass(frozen=True, kw_only=True)
class Residence:
    """What decides whether images become resident, and how."""

    resize: int | None
    resident_mib: int
    max_bad_fraction: float
    cache: bool
    workers: int


def settle(images: ImageFiles, how: Residence, where: str) -> Images:
    """Decode `images` into memory where `how` allows, else leave them files. Unreadable ones are
    left out, and more than `max_bad_fraction` of them is a `UserError`."""
    if how.resize is not None:
        print_of = fingerprint(images.fingerprint.encode(), str(how.resize).encode())
        images = dataclasses.replace(images, resize=how.resize, fingerprint=print_of)
    key = _key(images, how)
    cached = cache.load(key) if how.cache else None
    decoded = _decoded(images, how) if cached is None else cached
    skipped = tuple((images.ids[i], reason) for i, reason in sorted(decoded.bad.items()))
    _check_bad(skipped, len(images), how.max_bad_fraction, where)
    if how.cache and cached is None:
        cache.save(key, decoded)
    if skipped:
        good = torch.ones(len(images), dtype=torch.bool)
        good[list(decoded.bad)] = False
        images = dataclasses.replace(images.select(good.nonzero().flatten()), skipped=skipped)
    if decoded.pixels is None:
        return images
    resident = resident_images(
        decoded.pixels, images.labels, images.classes, images.ids, digest=decoded.digest
    )
    return dataclasses.replace(resident, skipped=skipped)


def _key(images: ImageFiles, how: Residence) -> str:
    return fingerprint(
        repr((cache.VERSION, PIL.__version__, images.resize, how.resident_mib)).encode(),
        images.source.stamp.encode(),
        images.fingerprint.encode(),  # also says which images of the source
    )


def _check_bad(
    skipped: tuple[tuple[str, str], ...], n: int, max_bad_fraction: float, where: str
) -> None:
    if not skipped:
        return
    first = "; ".join(f"{id} ({reason})" for id, reason in skipped[:10])
    more = "; …" if len(skipped) > 10 else ""
    if len(skipped) == n:
        raise UserError(f"{where} holds no readable image: {first}{more}")
    if len(skipped) > max_bad_fraction * n:
        raise UserError(
            f"{where}: at most {max_bad_fraction:.3g} of the images may be unreadable; "
            f"{len(skipped)} of {n} are: {first}{more}: remove them or raise max_bad_fraction"
        )
    logger.warning(
        "%s: skipped %d unreadable of %d images: %s%s", where, len(skipped), n, first, more
    )


def _decoded(images: ImageFiles, how: Residence) -> Decoded:
    logger.info("reading %d images", len(images))
    with quiet():
        decoded = _decode_all(images, how)
        return _check_headers(images, how.workers) if decoded is None else decoded


def _decode_all(images: ImageFiles, how: Residence) -> Decoded | None:
    """All pixels; None as soon as the images prove too many, or of several sizes. The first
    picture's size is a guess that costs nothing: where it is wrong, that shows soon."""
    bad: dict[int, str] = {}
    shape = _first_shape(images, bad)
    if shape is None:
        return Decoded(None, None, bad)
    if len(images) * 3 * shape[0] * shape[1] > how.resident_mib * 2**20:
        return None
    pixels = np.empty((len(images), 3, *shape), np.uint8)
    mixed = threading.Event()

    def decode_one(i: int) -> None:
        if mixed.is_set():
            return
        try:
            with images.source.open(images.ids[i]) as file:
                picture = np.asarray(decode(file, images.resize))
        except OSError as error:
            bad[i] = str(error)
            return
        if picture.shape[:2] != shape:
            mixed.set()
            return
        pixels[i] = picture.transpose(2, 0, 1)

    _in_threads(decode_one, len(images), how.workers)
    if mixed.is_set():
        return None
    kept = torch.from_numpy(np.delete(pixels, sorted(bad), axis=0) if bad else pixels)
    return Decoded(kept, pixel_digest(kept), bad)


def _first_shape(images: ImageFiles, bad: dict[int, str]) -> tuple[int, int] | None:
    """Height and width of the first image that decodes; those before it go into `bad`."""
    for i, id in enumerate(images.ids):
        try:
            with images.source.open(id) as file:
                width, height = decode(file, images.resize).size
            return height, width
        except OSError as error:
            bad[i] = str(error)
    return None


def _check_headers(images: ImageFiles, workers: int) -> Decoded:
    bad: dict[int, str] = {}

    def check_one(i: int) -> None:
        try:
            with images.source.open(images.ids[i]) as file:
                check_header(file)
        except OSError as error:
            bad[i] = str(error)

    _in_threads(check_one, len(images), workers)
    return Decoded(None, None, bad)


def _in_threads(work: Callable[[int], None], n: int, workers: int) -> None:
    """`work(i)` for all i < n. Pillow decodes without holding Python's lock."""

    def run(start: int) -> None:
        for i in range(start, min(start + CHUNK, n)):
            work(i)

    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(run, range(0, n, CHUNK)):
            pass
