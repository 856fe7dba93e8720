"""Small pictures of the images of a table: one by one as JPEG, and on sheets for a page."""

import io
import logging
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image

from headwise.augment import whole_batches, whole_images
from headwise.data import Images, ResidentImages
from headwise.errors import UserError
from headwise.explore.table import Table
from headwise.features.thumbnails import as_jpegs
from headwise.files import plain_text
from headwise.runtime.progress import progress

SHEET_SIDE = 10
"""Thumbnails in a row of a sheet, and rows of a sheet."""
_QUALITY = 82
_MOST_PIXELS = 1024**2
"""A table from elsewhere may hold anything under `image`; a thumbnail is not larger than this."""

log = logging.getLogger("headwise")

Thumbnails = list[bytes | None]
"""An encoded square for each row of a table; None where there is none."""


def from_column(table: Table) -> Thumbnails | None:
    """The thumbnails that `headwise embed` put into the table (`--thumbnails`); None without such a
    column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if table.path.suffix.lower() != ".parquet":
        return None
    schema = pq.read_schema(table.path)
    if "image" not in schema.names or not pa.types.is_struct(schema.field("image").type):
        return None
    column = pq.read_table(table.path, columns=["image"]).column("image").to_pylist()
    return [None if value is None else value.get("bytes") for value in column]


def from_images(
    table: Table, splits: Sequence[Images], px: int, *, workers: int, quiet: bool
) -> Thumbnails:
    """Thumbnails of the images whose path is in the table, at most `px` pixels wide; small images
    keep their size. Raises `UserError` if there is none, and says how many rows have none."""
    found: Thumbnails = [None] * len(table)
    rows = {name: row for row, name in enumerate(table.names)}
    with progress("thumbnails", len(table), quiet=quiet) as show:
        done = 0
        for images in splits:
            known = [
                (i, rows[n]) for i, id in enumerate(images.ids) if (n := plain_text(id)) in rows
            ]
            if not known:
                continue
            some = images.select(torch.tensor([i for i, _ in known]))
            for index, jpegs in _encoded(some, px, workers):
                for i, jpeg in zip(index, jpegs, strict=True):
                    found[known[i][1]] = jpeg
                done += len(index)
                show(done, "images")
    missing = sum(one is None for one in found)
    if missing == len(table):
        own = next((images.ids[0] for images in splits if len(images)), "none")
        raise UserError(
            f"IMAGES must be the images of {table.path}; none of its {len(table):,} paths is among "
            f"them: {table.names[0]!r} in the table, {own!r} in IMAGES"
        )
    if missing:
        log.warning("%s rows of %s have no image to show", f"{missing:,}", table.path)
    return found


def _encoded(images: Images, px: int, workers: int) -> Iterator[tuple[list[int], list[bytes]]]:
    config = whole_images(min(px, _side(images)), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    for index, pixels in whole_batches(
        images, config, batch_size=256, device="cpu", workers=workers
    ):
        yield index.tolist(), as_jpegs((pixels * 255).round().byte(), config.size)


def _side(images: Images) -> int:
    """The shorter side of the first image that can be read."""
    if isinstance(images, ResidentImages):
        return min(images.pixels.shape[-2:])
    for i in range(min(len(images), 20)):
        try:
            return min(images.read(i).size)
        except OSError:
            continue
    return 1 << 16


def sheets(found: Thumbnails, order: Sequence[int], px: int) -> Iterator[bytes]:
    """JPEG sheets of `SHEET_SIDE`² thumbnails each, in this order of the rows."""
    per_sheet = SHEET_SIDE**2
    for start in range(0, len(order), per_sheet):
        stream = io.BytesIO()
        sheet = on_sheet(found, order[start : start + per_sheet], px, across=SHEET_SIDE)
        sheet.save(stream, "JPEG", quality=_QUALITY, optimize=True)
        yield stream.getvalue()


def on_sheet(found: Thumbnails, rows: Sequence[int], px: int, *, across: int) -> Image.Image:
    """The thumbnails of these rows on a square sheet, `across` in a row. A row without one leaves
    its place grey."""
    sheet = Image.new("RGB", (across * px, across * px), (128, 128, 128))
    for place, row in enumerate(rows):
        if (picture := _opened(found[row], px)) is not None:
            down, right = divmod(place, across)
            sheet.paste(picture, (right * px, down * px))
    return sheet


def largest_side(found: Thumbnails, px: int) -> int:
    """The side of a place on a sheet: that of the first thumbnail, and at most `px`."""
    for encoded in found:
        if encoded is not None and (side := _size(encoded)):
            return min(px, side)
    return px


def _size(encoded: bytes) -> int:
    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            return max(picture.size)
    except (OSError, Image.DecompressionBombError):
        return 0


def _opened(encoded: bytes | None, px: int) -> Image.Image | None:
    """The thumbnail as a square of `px`; None for one that cannot be read."""
    if encoded is None:
        return None
    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            if math.prod(picture.size) > _MOST_PIXELS:
                return None
            square = picture.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    if square.size == (px, px):
        return square
    side = min(square.size)
    left, top = (square.width - side) // 2, (square.height - side) // 2
    return square.crop((left, top, left + side, top + side)).resize((px, px))


def near_first(points: np.ndarray) -> np.ndarray:
    """An order of points in which those close together follow each other (Morton's curve), so that
    what is looked at together lies on few sheets."""
    low, high = points.min(0), points.max(0)
    cells = ((points - low) / np.maximum(high - low, 1e-12) * 1023).astype(np.uint32)
    code = np.zeros(len(points), np.uint32)
    for bit in range(10):
        for axis in range(2):
            code |= (cells[:, axis] >> bit & 1) << (2 * bit + axis)
    return np.argsort(code, kind="stable")
