"""The images that a run saw: images.json and images.npz, and what has changed since."""

import dataclasses
import glob
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from headwise.config import from_dict, to_dict
from headwise.data.config import DataConfig
from headwise.data.images import SKIPPED_FILE, Images, Splits, fingerprint, read_skipped
from headwise.data.marks import marks_of
from headwise.data.names import Names, as_names, contiguous_names, digests
from headwise.errors import UserError
from headwise.files import read_object, write_atomically, write_json
from headwise.runs.directory import load_arrays, save_arrays

RECORD_FILE, LIST_FILE = "images.json", "images.npz"
HANDED_OVER = "images handed over in Python"
"""The spec of images that were not opened from one."""
SHOWN = 2
"""Examples that are named of each kind of change."""

Lists = dict[str, np.ndarray]
"""What images.npz holds: `train.names`, `train.marks` and so on."""


@dataclass(frozen=True, kw_only=True)
class SplitRecord:
    """The images of one split."""

    images: int
    fingerprint: str
    """Of their names, their content, their labels and the names of the classes."""


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """images.json."""

    version: int = 1
    data: DataConfig
    """How the images were opened."""
    path: str | None
    """The absolute path of the spec, where it is a path."""
    split_rule: str
    classes: tuple[str, ...]
    train: SplitRecord
    test: SplitRecord | None


def described(images: Splits, data: DataConfig) -> DataConfig:
    """Return how the images were opened; where they were not, `data` with a spec that says so."""
    return images.train.opened or dataclasses.replace(data, spec=HANDED_OVER)


def write_record(folder: Path, images: Splits) -> None:
    """Write images.npz, the lists of the images, and images.json, into the directory of a run or a
    comparison."""
    lists = _lists(images)
    data, classes = described(images, DataConfig()), images.train.classes
    test = None if images.test is None else _split_record(lists, "test", classes)
    record = ImageRecord(
        data=data,
        path=_absolute(data.spec),
        split_rule=images.train.split_rule,
        classes=classes,
        train=_split_record(lists, "train", classes),
        test=test,
    )
    write_atomically(folder / LIST_FILE, lambda path: save_arrays(path, lists))
    write_json(folder / RECORD_FILE, to_dict(record))


def read_record(folder: Path) -> ImageRecord | None:
    """Return what images.json says; None in directories of version 0.1."""
    path = folder / RECORD_FILE
    return from_dict(ImageRecord, read_object(path), str(path)) if path.exists() else None


def located(folder: Path, data: DataConfig, at: str | None = None) -> DataConfig:
    """Return the settings `data` of a run or a comparison with a spec that leads to its images from
    this working directory, or with the spec `at`."""
    if at is not None:
        return dataclasses.replace(data, spec=at)
    if data.spec == HANDED_OVER:
        raise UserError(
            f"the images of {folder} were handed over in Python; hand them over again with "
            "images=, or name images with --data"
        )
    record = read_record(folder)
    if record is None or record.path is None:
        return data
    leads_there = _absolute(data.spec) == record.path
    specs = (data.spec,) if leads_there else (record.path, data.spec)
    found = [spec for spec in specs if _exists(spec)]
    if not found:
        raise UserError(
            f"the images of {folder} must be at {record.path}; nothing is there; name the place "
            "where they are now with --data"
        )
    return dataclasses.replace(data, spec=found[0])


def moved(folder: Path, to: str) -> None:
    """Note in images.json that the same images are at another place now."""
    if record := read_record(folder):
        path = _absolute(to)
        write_json(folder / RECORD_FILE, to_dict(dataclasses.replace(record, path=path)))


def same_source(record: ImageRecord, spec: str) -> bool:
    """Return whether a spec leads to what the images of the record were opened from."""
    path = _absolute(spec)
    if path is None or record.path is None:
        return spec == record.data.spec
    if os.path.realpath(path) == os.path.realpath(record.path):
        return True
    return spec == record.data.spec and not _exists(record.path)


def same_reading(record: ImageRecord, data: DataConfig) -> bool:
    """Return whether `data` opens the images of the record, or fewer of each split, or tests on
    their validation images."""
    other = {
        "spec": "",
        "limit": None,
        "fit": None,
        "resize": None,
        "resident_mib": 0,
        "cache": True,
    }
    alike = [
        dataclasses.replace(one.findable(), max_bad_fraction=0.0, test_on="test", **other)
        for one in (record.data, data)
    ]
    narrower = record.data.limit is None or (data.limit or math.inf) <= record.data.limit
    return same_source(record, data.spec) and alike[0] == alike[1] and narrower


def changes(folder: Path, images: Splits, *, some: bool = False) -> str:
    """Return in words how images differ from those that the run in `folder` saw; "" if they do not,
    or if it is not known. `some`: the images are only some of them, maybe not in splits, and maybe
    with validation images, of which the record has no list."""
    record = read_record(folder)
    if record is None:
        return ""
    lists, classes = _lists(images), images.train.classes
    if _are_those_of(record, lists, classes):
        return ""
    old, new = _table(_kept_lists(folder, record), record.classes), _table(lists, classes)
    skipped = as_names(read_skipped(folder / SKIPPED_FILE))  # seen again where headers are read
    words = _changes(old, new, some, skipped.digests())
    if some and record.data.validation_fraction:
        words = [kind for kind in words if " added (" not in kind]
    words += [f"class {name} added" for name in classes if name not in record.classes]
    if not some:
        words += [f"class {name} removed" for name in record.classes if name not in classes]
        words = words or ["the same images in another order"] * (len(old.ids) == len(new.ids))
    return ", ".join(words)


def seen(folder: Path, images: Images) -> int | None:
    """Return how many of these images were among the training images of the run, by their content;
    None if the run has no list of them."""
    record = read_record(folder)
    if record is None:
        return None
    return int(np.isin(marks_of(images), _kept_lists(folder, record)["train.marks"]).sum())


def drawn_otherwise(folder: Path, images: Splits) -> bool:
    """Return whether a run or a comparison is of version 0.1, which drew other test images."""
    of_old = "version" not in read_object(folder / "config.json")
    opened = images.train.opened
    files = opened is not None and not opened.spec.startswith("builtin:")
    return of_old and files and images.train.split_rule.startswith("drawn")


def _absolute(spec: str) -> str | None:
    """The absolute path of a spec; None if it is no path."""
    if spec.partition(":")[0] in ("builtin", "torchvision") or spec == HANDED_OVER:
        return None
    return os.path.abspath(os.path.expanduser(spec))


def _exists(spec: str) -> bool:
    path = os.path.expanduser(spec)
    return os.path.exists(path) or bool(glob.glob(path))


def _lists(images: Splits) -> Lists:
    """The names, the marks and the labels of each split, as images.npz has them."""
    lists = {}
    for split, part in images._asdict().items():
        if part is None:
            continue
        lists[f"{split}.names"] = np.frombuffer(b"".join(part.ids.encoded()), np.uint8)
        lists[f"{split}.lengths"] = (part.ids.ends - part.ids.starts).astype(np.int32)
        lists[f"{split}.marks"] = marks_of(part)
        if part.labels is not None:
            lists[f"{split}.labels"] = part.labels.cpu().contiguous().numpy()
        if part.groups is not None:
            lists[f"{split}.groups"] = part.groups.contiguous().numpy()
    return lists


def _split_record(lists: Lists, split: str, classes: tuple[str, ...]) -> SplitRecord:
    own = [name for name in sorted(lists) if name.startswith(split)]
    parts = [part for name in own for part in (name.encode(), lists[name])]
    digest = fingerprint(*parts, ascii(classes).encode())
    return SplitRecord(images=len(lists.get(f"{split}.marks", ())), fingerprint=digest)


def _are_those_of(record: ImageRecord, lists: Lists, classes: tuple[str, ...]) -> bool:
    """Whether these lists are those that the record was written with."""
    train, test = (_split_record(lists, split, classes) for split in ("train", "test"))
    return record.train == train and (record.test == test if record.test else test.images == 0)


def _kept_lists(folder: Path, record: ImageRecord) -> Lists:
    """images.npz of a run. Raises `UserError` if it does not belong to images.json."""
    lists = load_arrays(folder / LIST_FILE)
    if not _are_those_of(record, lists, record.classes):
        raise UserError(
            f"{folder / LIST_FILE} must hold the list of the run's images; it is missing, damaged "
            f"or of another run; put it back, or remove {RECORD_FILE} too to go on without a check"
        )
    return lists


class _Table(NamedTuple):
    """The images of both splits, a row each."""

    names: Names
    ids: UInt64[np.ndarray, " n"]
    """Digests of the names."""
    marks: UInt64[np.ndarray, " n"]
    classes: UInt64[np.ndarray, " n"]
    """Digests of the names of the classes; 0 without one."""
    groups: Int64[np.ndarray, " n"]
    """0 where nothing says which images belong together."""
    test: Bool[np.ndarray, " n"]


def _table(arrays: Lists, classes: tuple[str, ...]) -> _Table:
    splits = [split for split in ("train", "test") if f"{split}.marks" in arrays]

    def joined(kind: str) -> np.ndarray:
        return np.concatenate([arrays[f"{split}.{kind}"] for split in splits])

    sizes = [len(arrays[f"{split}.marks"]) for split in splits]
    by_class = np.append(digests(map(os.fsencode, classes)), np.uint64(0))
    labels = [
        arrays.get(f"{split}.labels", np.full(size, -1))
        for split, size in zip(splits, sizes, strict=True)
    ]
    groups = [
        arrays.get(f"{split}.groups", np.zeros(size, np.int64))
        for split, size in zip(splits, sizes, strict=True)
    ]
    names = contiguous_names(joined("names"), joined("lengths").cumsum(dtype=np.int64))
    return _Table(
        names=names,
        ids=names.digests(),
        marks=joined("marks"),
        classes=by_class[np.concatenate(labels)],
        groups=np.concatenate(groups),
        test=np.repeat([split == "test" for split in splits], sizes),
    )


def _changes(old: _Table, new: _Table, some: bool, unreadable: np.ndarray) -> list[str]:
    """Each kind of change that there is, with its count and examples."""
    _, before, after = np.intersect1d(old.ids, new.ids, return_indices=True)
    gone, come = ~np.isin(old.ids, new.ids), ~np.isin(new.ids, old.ids)
    come &= ~np.isin(new.ids, unreadable)
    renamed = come & np.isin(new.marks, old.marks[gone])
    removed = gone & ~np.isin(old.marks, new.marks[come])
    moved = old.test[before] != new.test[after]
    kinds = [
        ("added", new, (come & ~renamed).nonzero()[0]),
        ("removed", old, (removed & (not some)).nonzero()[0]),
        ("renamed", new, renamed.nonzero()[0]),
        ("overwritten", new, after[old.marks[before] != new.marks[after]]),
        ("with another label", new, after[old.classes[before] != new.classes[after]]),
        ("in another group", new, after[old.groups[before] != new.groups[after]]),
        ("moved between training and test", new, after[moved & (not some)]),
    ]
    words = []
    for kind, table, rows in kinds:
        if len(rows):
            named = ", ".join(ascii(table.names[i])[1:-1] for i in rows[:SHOWN].tolist())
            words.append(f"{len(rows):,} {kind} ({named}{', …' * (len(rows) > SHOWN)})")
    return words
