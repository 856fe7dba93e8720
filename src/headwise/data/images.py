"""The two kinds of images: pixels in memory, or files that workers decode when they are read."""

import contextlib
import csv
import dataclasses
import hashlib
import io
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import PIL.Image
import torch
from jaxtyping import Int64, UInt8, UInt64
from torch import Tensor
from torch.utils.data import get_worker_info

from headwise.data.config import DataConfig, Fit
from headwise.data.decode import LazyImage, decode, open_image
from headwise.data.names import Names, as_names
from headwise.data.quiet import hushed, quiet
from headwise.data.unreadable import Tolerance
from headwise.files import csv_text, write_text

SKIPPED_FILE = "skipped.csv"
"""In a run: what `write_skipped` wrote."""


@runtime_checkable
class Source(Protocol):
    """A source of encoded images. It is picklable, and `open` is safe in threads and forks."""

    @property
    def content(self) -> str:
        """A digest of the listing, which is the same on every machine."""
        ...

    @property
    def stamp(self) -> str:
        """A digest that also depends on the location and the modification times."""
        ...

    def open(self, id: str) -> io.BufferedIOBase:
        """Open the encoded image with this id. Raises `OSError`."""
        ...


@dataclass(frozen=True)
class ResidentImages:
    """Decoded images of equal size in memory, on any device."""

    pixels: UInt8[Tensor, "n 3 h w"]
    labels: Int64[Tensor, " n"] | None
    """Indices into `classes`; −1 where the label is missing. None if no image has a label."""
    classes: tuple[str, ...]
    """Class names. () if the images have no labels."""
    ids: Names
    """The path of each image in its source, or file:row."""
    factors: dict[str, Tensor]
    """Known nuisance factors by name, each of length n. {} if there are none."""
    skipped: tuple[tuple[str, str], ...]
    """The id of each unreadable image, and the reason."""
    fingerprint: str
    """Hex digest of pixels, labels and classes."""
    split_rule: str = ""
    """How the source's training and test images were told apart. "" if they were not."""
    left_out: tuple[tuple[str, str], ...] = ()
    """Every file of the source that is not read as an image, and the reason; with the training
    images only."""
    marks: UInt64[np.ndarray, " n"] | None = None
    """64 bits of each image's content (`marks_of`). None where they are not taken yet."""
    groups: Int64[Tensor, " n"] | None = None
    """Equal for images that belong together (`group_numbers`). None where nothing says so."""
    opened: DataConfig | None = None
    """How the images were opened. None if they were made or selected in Python."""

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, index: Int64[Tensor, " m"]) -> "ResidentImages":
        """Return the images at `index`, in this order."""
        pixels = self.pixels[index.to(self.pixels.device)]
        return dataclasses.replace(self, pixels=pixels, **_selected(self, index))

    def to(self, device: torch.device | str) -> "ResidentImages":
        return dataclasses.replace(
            self,
            pixels=self.pixels.to(device),
            labels=None if self.labels is None else self.labels.to(device),
            factors={name: values.to(device) for name, values in self.factors.items()},
        )


@dataclass(frozen=True)
class ImageFiles:
    """Encoded images that are decoded when they are read. Picklable, so that workers can read."""

    source: Source
    labels: Int64[Tensor, " n"] | None
    """This and the following fields are as in `ResidentImages`."""
    classes: tuple[str, ...]
    ids: Names
    factors: dict[str, Tensor]
    skipped: tuple[tuple[str, str], ...]
    """Files with an unreadable header. Other damage shows when an image is read."""
    fingerprint: str
    """Hex digest of the source's listing and the ids, but not of the files' bytes."""
    resize: int | None = None
    """If set, every image is read as a square of this many pixels."""
    fit: Fit = "crop"
    """How an image becomes a square. With pad and stretch every image is read as one."""
    tolerance: Tolerance | None = None
    """How many may turn out to be unreadable; None: any number."""
    split_rule: str = ""
    """This and the following fields are as in `ResidentImages`."""
    left_out: tuple[tuple[str, str], ...] = ()
    marks: UInt64[np.ndarray, " n"] | None = None
    groups: Int64[Tensor, " n"] | None = None
    opened: DataConfig | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def check(self, found: dict[str, str]) -> None:
        """Raise `UserError` if too many are unreadable, with what was found since opening."""
        if self.tolerance is not None:
            self.tolerance.check(dict(self.skipped) | found)

    def say(self, found: dict[str, str], done: str) -> None:
        """Warn of what was found since opening, and say what was `done` about it."""
        if self.tolerance is not None:
            self.tolerance.say(found, done)

    def read(self, i: int) -> PIL.Image.Image:
        """Return image `i` as upright RGB. Raises `OSError` with the id and the reason."""
        with self._file(i) as file:
            return decode(file, self.resize, fit=self.fit)

    @contextlib.contextmanager
    def open(self, i: int) -> Iterator[LazyImage]:
        """Open image `i`, to be decoded within the block. Errors there are as in `read`."""
        with self._file(i) as file:
            yield open_image(file.read(), self.resize, self.fit)

    @contextlib.contextmanager
    def _file(self, i: int) -> Iterator[io.BufferedIOBase]:
        id = self.ids[i]
        # A worker's standard error is its own; in this process others write there too.
        hush = get_worker_info() is not None
        try:
            with hushed(id, logging.DEBUG) if hush else quiet(), self.source.open(id) as file:
                yield file
        except OSError as error:
            raise OSError(f"{id}: {error}") from error

    def select(self, index: Int64[Tensor, " m"]) -> "ImageFiles":
        """Return the images at `index`, in this order."""
        return dataclasses.replace(self, **_selected(self, index))

    def to(self, device: torch.device | str) -> "ImageFiles":
        """Return self, because files have no device. For callers that have either kind."""
        return self


Images = ResidentImages | ImageFiles


class Splits(NamedTuple):
    """Training images, and test images if there are any."""

    train: Images
    test: Images | None


def resident_images(
    pixels: UInt8[Tensor, "n 3 h w"],
    labels: Int64[Tensor, " n"] | None,
    classes: tuple[str, ...],
    ids: Sequence[str],
    *,
    factors: dict[str, Tensor] | None = None,
    digest: str | None = None,
) -> ResidentImages:
    """Return images in memory on the CPU, with their fingerprint. `digest` is the `pixel_digest` of
    the pixels, if it is already known."""
    contents = fingerprint(
        (digest or pixel_digest(pixels)).encode(),
        b"" if labels is None else labels.contiguous().numpy(),
        repr(classes).encode(),
    )
    return ResidentImages(pixels, labels, classes, as_names(ids), factors or {}, (), contents)


def image_files(
    source: Source, ids: Sequence[str], labels: Int64[Tensor, " n"] | None, classes: tuple[str, ...]
) -> ImageFiles:
    """Return images in files, with the fingerprint of their listing."""
    listing = "\0".join(ids).encode(errors="surrogateescape")
    contents = fingerprint(source.content.encode(), listing)
    return ImageFiles(source, labels, classes, as_names(ids), {}, (), contents)


def pixel_digest(pixels: UInt8[Tensor, "n 3 h w"]) -> str:
    return fingerprint(str(tuple(pixels.shape)).encode(), pixels.contiguous().numpy())


def fingerprint(*parts: object) -> str:
    """Return the SHA-256 of the length and the bytes of every part. A part is any buffer."""
    digest = hashlib.sha256()
    for part in parts:
        view = memoryview(part)  # type: ignore[arg-type]
        digest.update(view.nbytes.to_bytes(8, "little"))
        digest.update(view)
    return digest.hexdigest()


def write_skipped(images: Iterable[Images], path: Path) -> None:
    """Write the unreadable images of all splits, and the files that are not read as images, as CSV
    (file, reason), if there are any."""
    rows = [row for split in images for row in (*split.skipped, *split.left_out)]
    if rows:
        write_text(path, csv_text(("file", "reason"), rows))


def read_skipped(path: Path) -> list[str]:
    """Return the names in what `write_skipped` wrote; none where there was nothing to write."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row["file"] for row in csv.DictReader(file)]


def _selected(images: Images, index: Int64[Tensor, " m"]) -> dict[str, object]:
    """Return the selected values of the fields that both kinds have."""
    index, labels = index.cpu(), images.labels
    return {
        "labels": None if labels is None else labels[index.to(labels.device)],
        "ids": images.ids.select(index.numpy()),
        "factors": {name: v[index.to(v.device)] for name, v in images.factors.items()},
        "fingerprint": fingerprint(images.fingerprint.encode(), index.contiguous().numpy()),
        "marks": None if images.marks is None else images.marks[index.numpy()],
        "groups": None if images.groups is None else images.groups[index],
        "opened": None,
    }
