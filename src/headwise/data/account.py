"""What is said of images before anything runs: how a source was read, and what may surprise."""

import contextlib
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from headwise.data.decode import header_size
from headwise.data.images import ImageFiles, Images, ResidentImages, Splits

SHARES_DIFFER = 0.1
"""Training and test images differ much if more than this fraction of the test images would have to
change class for equal shares, and more than chance explains."""

CUT_AWAY = 0.1
"""The least share of the area outside of central squares that is said."""


def reading(splits: Splits, where: str) -> str:
    """Return in one line what was read: "photos: 12,000 images: train 10,000 in 10 classes, test
    2,000; split by folder names"."""
    train, test = splits
    if train.labels is None:
        classes = "without labels"
    else:
        known = f", {n:,} without a label" if (n := int((train.labels < 0).sum())) else ""
        classes = f"in {len(train.classes):,} classes{known}"
    if test is None:
        return f"{where}: {len(train):,} images for training, {classes}; no test images"
    labels = " without labels" if test.labels is None and train.labels is not None else ""
    rule = f"; split {train.split_rule}" if train.split_rule else ""
    total = len(train) + len(test)
    return (
        f"{where}: {total:,} images: train {len(train):,} {classes}, "
        f"test {len(test):,}{labels}{rule}"
    )


def counted(left_out: Iterable[tuple[str, str]]) -> str:
    """Return how many files there are of each reason, the most frequent first."""
    counts: dict[str, int] = {}
    for _, reason in left_out:
        counts[reason] = counts.get(reason, 0) + 1
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count:,} ({reason})" for reason, count in ranked[:6]]
    return ", ".join([*shown, "…"] if len(ranked) > 6 else shown)


def left_out(splits: Splits) -> str:
    """Return in one line what of the source is not read as images, or ""."""
    files = splits.train.left_out
    return f"{len(files):,} files are not read as images: {counted(files)}" if files else ""


def unequal_shares(splits: Splits) -> str:
    """Return in one line where the class shares of training and test images differ much, or ""."""
    train, test = splits
    if train.labels is None or test is None or test.labels is None:
        return ""
    shares, expected = (_shares(images, len(train.classes)) for images in (test, train))
    distance = float((shares - expected).abs().sum()) / 2
    by_chance = 0.5 * (len(train.classes) / max(len(test), 1)) ** 0.5
    if distance <= SHARES_DIFFER + by_chance:
        return ""
    i = int((shares - expected).argmax())
    return (
        f"the classes have other shares among test images than among training images: "
        f"{train.classes[i]} has {shares[i]:.0%} of the test images and {expected[i]:.0%} of the "
        "training images"
    )


def copies(splits: Splits) -> int:
    """Return how many test images equal a training image in every pixel: of images in memory."""
    train, test = splits
    if not isinstance(train, ResidentImages) or not isinstance(test, ResidentImages):
        return 0
    if train.pixels.shape[1:] != test.pixels.shape[1:]:
        return 0
    # A few pixels of each tell almost all images apart; the others are compared in full.
    tables = [images.pixels.flatten(1).cpu().numpy() for images in (train, test)]
    step = max(1, tables[0].shape[1] // 64)
    few = [np.ascontiguousarray(table[:, ::step]) for table in tables]
    keys = [table.view(f"S{table.shape[1]}")[:, 0] for table in few]
    known, asked = (
        [hash(table[i].tobytes()) for i in np.isin(own, other).nonzero()[0]]
        for table, own, other in zip(tables, keys, reversed(keys), strict=True)
    )
    found = set(known)
    return sum(image in found for image in asked)


def cut_away(images: Images) -> str:
    """Return in one line what share of the images' area lies outside of their central squares, if
    it is more than a tenth, or ""."""
    if isinstance(images, ResidentImages):
        sizes = [(images.pixels.shape[3], images.pixels.shape[2])]
    else:
        sizes = [*_some_sizes(images)]
    kept = [min(size) / max(size) for size in sizes]
    share = 1 - sum(kept) / max(len(kept), 1)
    if not kept or share <= CUT_AWAY:
        return ""
    return (
        f"the central square of an image, which evaluate and embed use, leaves out {share:.0%} of "
        "its area on average; to use whole images: --data.fit pad or stretch"
    )


def _some_sizes(images: ImageFiles) -> Iterator[tuple[int, int]]:
    """Yield the sizes of up to 64 images, by their headers: some neighbours at each of a few
    places, since neighbours share a row group of a parquet table."""
    for start in range(0, len(images), max(8, len(images) // 8)):
        for id in images.ids[start : start + 8]:
            with contextlib.suppress(OSError), images.source.open(id) as file:
                yield header_size(file)


def _shares(images: Images, classes: int) -> Tensor:
    assert images.labels is not None, "labels were checked"
    counts = torch.bincount(images.labels[images.labels >= 0], minlength=classes).double()
    return counts / counts.sum().clamp(min=1)
