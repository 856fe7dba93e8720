"""The two kinds of image sets: pixels in memory, or files that workers decode on demand."""

import contextlib
import csv
import dataclasses
import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import PIL.Image
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from headwise.data.decode import LazyImage, decode, open_image
from headwise.data.names import Names, as_names
from headwise.files import write_text


@runtime_checkable
class Source(Protocol):
    """Where encoded images are read from. Picklable; `open` is safe in threads and after a fork."""

    @property
    def content(self) -> str:
        """A digest of what is inside; the same on every machine."""
        ...

    @property
    def stamp(self) -> str:
        """A digest that also changes with the place and the times of modification."""
        ...

    def open(self, id: str) -> io.BufferedIOBase:
        """The encoded image called `id`. Raises `OSError`."""
        ...


@dataclass(frozen=True)
class ResidentImages:
    """Decoded images of one size in memory, on any device."""

    pixels: UInt8[Tensor, "n 3 h w"]
    labels: Int64[Tensor, " n"] | None
    """Indices into `classes`; None where the images have no labels."""
    classes: tuple[str, ...]
    """Class names; () where the images have no labels."""
    ids: Names
    """Of each image its path inside the source, or file:row."""
    factors: dict[str, Tensor]
    """Known nuisance factors by name, each of length n; {} where unknown."""
    skipped: tuple[tuple[str, str], ...]
    """Of each unreadable image its id and the reason."""
    fingerprint: str
    """Hex digest of pixels, labels and classes."""

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, index: Int64[Tensor, " m"]) -> "ResidentImages":
        """The images at `index`, in its order."""
        here = index.to(self.pixels.device)
        return dataclasses.replace(self, pixels=self.pixels[here], **_selected(self, index))

    def to(self, device: torch.device | str) -> "ResidentImages":
        return dataclasses.replace(
            self,
            pixels=self.pixels.to(device),
            labels=None if self.labels is None else self.labels.to(device),
            factors={name: values.to(device) for name, values in self.factors.items()},
        )


@dataclass(frozen=True)
class ImageFiles:
    """Images that stay encoded and are decoded when read. Picklable, so that workers can read."""

    source: Source
    labels: Int64[Tensor, " n"] | None
    """As in `ResidentImages`, like all that follow."""
    classes: tuple[str, ...]
    ids: Names
    factors: dict[str, Tensor]
    skipped: tuple[tuple[str, str], ...]
    """Those whose header is unreadable; deeper damage shows when an image is read."""
    fingerprint: str
    """Hex digest of the source's listing and the ids; the files' bytes are not read for it."""
    resize: int | None = None
    """Every image is read as a square of this many pixels."""

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, i: int) -> PIL.Image.Image:
        """Image `i`, decoded, RGB, upright. Raises `OSError` naming the id and the reason."""
        with self._file(i) as file:
            return decode(file, self.resize)

    @contextlib.contextmanager
    def open(self, i: int) -> Iterator[LazyImage]:
        """Image `i`, decoded when and as far as is asked for. Errors as of `read`, inside too."""
        with self._file(i) as file:
            yield open_image(file.read(), self.resize)

    @contextlib.contextmanager
    def _file(self, i: int) -> Iterator[io.BufferedIOBase]:
        id = self.ids[i]
        try:
            with self.source.open(id) as file:
                yield file
        except OSError as error:
            raise OSError(f"{id}: {error}") from error

    def select(self, index: Int64[Tensor, " m"]) -> "ImageFiles":
        """The images at `index`, in its order."""
        return dataclasses.replace(self, **_selected(self, index))

    def to(self, device: torch.device | str) -> "ImageFiles":
        """Itself: files have no device. For callers that hold either kind."""
        return self


Images = ResidentImages | ImageFiles


class Splits(NamedTuple):
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
    """Images in memory on the CPU, with the fingerprint of what they hold. `digest`: that of the
    pixels (`pixel_digest`), where it is known already."""
    print_of = fingerprint(
        (digest or pixel_digest(pixels)).encode(),
        b"" if labels is None else labels.contiguous().numpy(),
        repr(classes).encode(),
    )
    return ResidentImages(pixels, labels, classes, as_names(ids), factors or {}, (), print_of)


def image_files(
    source: Source, ids: Sequence[str], labels: Int64[Tensor, " n"] | None, classes: tuple[str, ...]
) -> ImageFiles:
    """Images in files, with the fingerprint of their listing."""
    listed = "\0".join(ids).encode(errors="surrogateescape")
    print_of = fingerprint(source.content.encode(), listed)
    return ImageFiles(source, labels, classes, as_names(ids), {}, (), print_of)


def pixel_digest(pixels: UInt8[Tensor, "n 3 h w"]) -> str:
    return fingerprint(str(tuple(pixels.shape)).encode(), pixels.contiguous().numpy())


def fingerprint(*parts: object) -> str:
    """SHA-256 over the length and the bytes of every part (anything with a buffer)."""
    digest = hashlib.sha256()
    for part in parts:
        view = memoryview(part)  # type: ignore[arg-type]
        digest.update(view.nbytes.to_bytes(8, "little"))
        digest.update(view)
    return digest.hexdigest()


def write_skipped(images: Iterable[Images], path: Path) -> None:
    """Write the unreadable images of all sets as CSV (file, reason), if there are any."""
    rows = [row for one in images for row in one.skipped]
    if rows:
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows([("file", "reason"), *rows])
        # File names may hold bytes that are not UTF-8.
        write_text(path, table.getvalue().encode(errors="backslashreplace").decode())


def _selected(images: Images, index: Int64[Tensor, " m"]) -> dict[str, object]:
    """The fields that both kinds select alike."""
    index = index.cpu()
    here = index if images.labels is None else index.to(images.labels.device)
    return {
        "labels": None if images.labels is None else images.labels[here],
        "ids": images.ids.select(index.numpy()),
        "factors": {name: v[index.to(v.device)] for name, v in images.factors.items()},
        "fingerprint": fingerprint(images.fingerprint.encode(), index.contiguous().numpy()),
    }
