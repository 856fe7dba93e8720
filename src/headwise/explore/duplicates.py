"""Duplicates: images with the same pixels, and near copies by the cosine of `h`."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64, UInt64
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from headwise.augment.contact_sheet import Tile, write_contact_sheet
from headwise.data.names import digests
from headwise.explore.pictures import Pictures
from headwise.runtime.hardware import usable_cores
from headwise.runtime.progress import progress

_SHOWN_GROUPS, _SHOWN_IMAGES = 40, 8


class Row(NamedTuple):
    """An image of a group of copies."""

    group: int
    """Groups with images of several splits come first, then the larger ones."""
    kind: str
    """exact: another image of the group has the same pixels; near: another has a similar h."""
    path: str
    split: str
    label: str
    similarity: float
    """The highest to another image of the group; 1 for equal pixels."""
    like: str
    """The path of that image."""
    across: bool
    """Whether the group has images of several splits."""


class Pairs(NamedTuple):
    """Pairs of images that are copies of each other."""

    places: Int64[np.ndarray, "2 k"]
    similarities: Float[np.ndarray, " k"]


def pixel_digests(
    names: Sequence[str], pictures: Pictures, *, quiet: bool
) -> UInt64[np.ndarray, " n"]:
    """Return 64 bits of the size and the pixels of each image; 0 for one that cannot be read."""

    def content(name: str) -> bytes:
        image = pictures(name)
        return b"" if image is None else repr(image.size).encode() + image.tobytes()

    def digest(name: str) -> np.uint64:
        found = content(name)
        return digests([found])[0] if found else np.uint64(0)

    with (
        ThreadPoolExecutor(usable_cores()) as pool,
        progress("pixels", len(names), quiet=quiet) as show,
    ):
        found = np.zeros(len(names), np.uint64)
        for i, value in enumerate(pool.map(digest, names)):
            found[i] = value
            show(i + 1, "images")
    return found


def exact_pairs(found: UInt64[np.ndarray, " n"]) -> Pairs:
    """Return a chain of pairs through the images of each digest; 0 is none."""
    order = np.argsort(found, kind="stable")
    ordered = found[order]
    same = np.flatnonzero((ordered[1:] == ordered[:-1]) & (ordered[1:] != 0))
    return Pairs(np.stack([order[same], order[same + 1]]), np.ones(len(same)))


def groups(
    exact: Pairs,
    near: Pairs,
    names: Sequence[str],
    splits: Sequence[str],
    labels: Sequence[str],
) -> list[list[Row]]:
    """Return the images that copies connect, group by group."""
    n = len(names)
    places = np.concatenate([exact.places, near.places], 1)
    values = np.concatenate([exact.similarities, near.similarities])
    _, component = connected_components(
        coo_array((np.ones(len(values)), tuple(places)), (n, n)), directed=False
    )
    best, like = _most_similar(places, values, n)
    members = np.unique(places)
    members = members[np.argsort(component[members], kind="stable")]
    ends = np.flatnonzero(np.diff(component[members])) + 1
    found = [part for part in np.split(members, ends) if len(part)]
    across = {int(part[0]): len({splits[i] for i in part.tolist()}) > 1 for part in found}
    found.sort(key=lambda part: (not across[int(part[0])], -len(part), int(part[0])))
    equal = {*exact.places.flatten().tolist()}
    return [
        [
            Row(
                group=number,
                kind="exact" if i in equal else "near",
                path=names[i],
                split=splits[i],
                label=labels[i],
                similarity=float(min(best[i], 1)),
                like=names[like[i]],
                across=across[int(part[0])],
            )
            for i in part.tolist()
        ]
        for number, part in enumerate(found, 1)
    ]


def _most_similar(
    places: Int64[np.ndarray, "2 k"], values: Float[np.ndarray, " k"], n: int
) -> tuple[Float[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """For each image the highest similarity of its pairs, and with which image."""
    best, like = np.full(n, -2.0), np.zeros(n, np.int64)
    order = np.argsort(values, kind="stable")  # the highest is written last
    for own, other in (places[:, order], places[::-1, order]):
        higher = values[order] > best[own]
        best[own[higher]], like[own[higher]] = values[order][higher], other[higher]
    return best, like


def summary(found: list[list[Row]]) -> Iterator[str]:
    """Say in a few lines what was found."""
    if not found:
        yield "no copies"
        return
    rows = [row for group in found for row in group]
    exact = sum(row.kind == "exact" for row in rows)
    yield (
        f"{len(rows):,} images in {len(found):,} groups of copies: {exact:,} with equal pixels, "
        f"{len(rows) - exact:,} near copies"
    )
    if across := [group for group in found if group[0].across]:
        tests = sum(row.split == "test" for group in across for row in group)
        yield (
            f"{len(across):,} groups have images of several splits; "
            f"{tests:,} test images are in them"
        )
    if unlike := sum(len({row.label for row in group if row.label}) > 1 for group in found):
        yield f"{unlike:,} groups have images of different labels"


def write_duplicates_sheet(found: list[list[Row]], pictures: Pictures, path: Path) -> int:
    """Write the first groups as a contact sheet, a row each; return how many."""
    shown = found[:_SHOWN_GROUPS]
    write_contact_sheet(
        [[_tile(row, pictures(row.path)) for row in group[:_SHOWN_IMAGES]] for group in shown],
        path,
    )
    return len(shown)


def _tile(row: Row, image: Image.Image | None) -> Tile:
    kind = "equal" if row.kind == "exact" else f"{row.similarity:.3f}"
    about = " ".join(filter(None, (f"{row.group}: {kind}", row.split, row.label)))
    return Tile(image, (about, row.path), marked=row.across and row.split == "test")
