"""Features that are given as a table: that of `headwise embed`, or one that anybody made."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from headwise.data.arrays import as_labels
from headwise.data.images import fingerprint
from headwise.data.reading import one_line
from headwise.errors import UserError
from headwise.features.extract import Features
from headwise.files import Json

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger("headwise")

_ABOUT = {"labels": ("label", "labels"), "split": ("split",), "names": ("path", "paths")}
"""The columns that are no features, by what they hold."""
_OWN_NAME = "vectors"
"""A column of this name is `h`."""

Columns = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class FeatureTable:
    """Rows of features with a label each, all finite; rows without a label are left out."""

    path: Path
    taps: dict[str, Float[Tensor, "n _"]]
    """Float32, by the name of the column."""
    labels: Int64[Tensor, " n"]
    """Places among `classes`."""
    classes: tuple[str, ...]
    test: Bool[Tensor, " n"]
    names: tuple[str, ...]
    """Of the images; () where the table has none."""
    about: Json
    """What `headwise embed` says of its table; {} for others."""

    def features(self, tap: str, *, test: bool) -> Features:
        """The training rows or the test rows of a tap."""
        rows = (self.test == test).nonzero().flatten()
        return Features(self.taps[tap][rows], self.labels[rows], torch.arange(len(rows)))

    def fingerprint(self, *, test: bool) -> str:
        """Of the images of a split, by their names and labels; by the vectors without names."""
        rows = (self.test == test).nonzero().flatten()
        if self.names:
            images = "\0".join(self.names[i] for i in rows.tolist()).encode()
        else:
            images = next(iter(self.taps.values()))[rows].numpy()
        return fingerprint(images, self.labels[rows].numpy(), repr(self.classes).encode())


def read_features(path: str | Path) -> FeatureTable:
    """Read a .parquet or an .npz: any number of columns of vectors (2-D arrays), `label`, `split`
    (train or test), and perhaps `path` (docs/run-directory.md). Raises `UserError` where something
    is missing, of another length, or not finite."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"--features must be a .parquet or .npz file; {path} does not exist")
    match path.suffix.lower():
        case ".parquet":
            columns, about = _parquet(path)
        case ".npz":
            columns, about = _npz(path), {}
        case _:
            raise UserError(f"--features must end in .parquet or .npz; got {path}")
    named = {
        kind: next((name for name in names if name in columns), None)
        for kind, names in _ABOUT.items()
    }
    _check(path, columns, named)
    columns = _without_validation(path, columns, named["split"] or "")
    vectors = {name: array for name, array in columns.items() if array.ndim == 2}
    test = _split(path, columns[named["split"] or ""])
    names = columns[named["names"]] if named["names"] else np.empty(0, str)
    labels, classes = as_labels(columns[named["labels"] or ""], str(path))
    if labels is None:
        raise UserError(f"{path} must have labels; all of them are empty")
    if about and {*classes} <= {*about.get("classes", ())}:  # the order in which they were numbered
        order = torch.tensor([about["classes"].index(name) for name in classes])
        labels, classes = torch.where(labels < 0, labels, order[labels]), tuple(about["classes"])
    return _labelled(
        FeatureTable(
            path=path,
            taps={
                "h" if name == _OWN_NAME else name: torch.from_numpy(array)
                for name, array in vectors.items()
            },
            labels=labels,
            classes=classes,
            test=torch.from_numpy(test),
            names=tuple(map(str, names.tolist())),
            about=about,
        )
    )


def _labelled(table: FeatureTable) -> FeatureTable:
    """The rows that have a label. Raises `UserError` unless there are some of both splits."""
    kept = (table.labels >= 0).nonzero().flatten()
    if left := len(table.labels) - len(kept):
        log.warning("%s: left out: %s rows without a label", table.path, f"{left:,}")
    found = FeatureTable(
        path=table.path,
        taps={tap: vectors[kept] for tap, vectors in table.taps.items()},
        labels=table.labels[kept],
        classes=table.classes,
        test=table.test[kept],
        names=tuple(table.names[i] for i in kept.tolist()) if table.names else (),
        about=table.about,
    )
    tests = int(found.test.sum())
    if not 0 < tests < len(kept):
        raise UserError(
            f"{table.path} must have labelled rows of both splits, train and test; "
            f"got {len(kept) - tests:,} and {tests:,}"
        )
    return found


def _without_validation(path: Path, columns: Columns, split: str) -> Columns:
    """The columns without rows of validation images, on which nothing is trained or tested."""
    held_out = columns[split].astype(str) == "validation"
    if not held_out.any():
        return columns
    log.warning("%s: left out: %s rows of validation", path, f"{held_out.sum():,}")
    return {
        name: array[~held_out] if len(array) == len(held_out) else array
        for name, array in columns.items()
    }


def _check(path: Path, columns: Columns, named: dict[str, str | None]) -> None:
    """Raise `UserError` unless all columns are there, of one length and finite."""
    vectors = {name: array for name, array in columns.items() if array.ndim == 2}
    listed = ", ".join(columns) or "none"
    if not vectors:
        raise UserError(
            f"{path} must have a column of vectors (in an .npz, a 2-D array of numbers); "
            f"it has {listed}"
        )
    if named["labels"] is None:
        raise UserError(f"{path} must have labels, in a column `label`; it has {listed}")
    if named["split"] is None:
        raise UserError(
            f"{path} must have a column `split` with train or test in every row; it has {listed}"
        )
    used = {name: columns[name] for name in (*vectors, *filter(None, named.values()))}
    lengths = {name: len(array) for name, array in used.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {count:,}" for name, count in lengths.items())
        raise UserError(f"{path} must have as many rows in every column; got {found}")
    for name, array in vectors.items():
        wrong = np.flatnonzero(~np.isfinite(array).all(1))
        if len(wrong):
            raise UserError(
                f"{path} must have finite vectors; {name} has NaN or infinity in {len(wrong):,} of "
                f"{len(array):,} rows, first in row {wrong[0]}"
            )


def _split(path: Path, values: Shaped[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    found = values.astype(str)
    other = [*{*found.tolist()} - {"train", "test"}]
    if other:
        raise UserError(
            f"{path} must have train or test in every row of `split`; got {sorted(other)[0]!r}"
        )
    return found == "test"


def _npz(path: Path) -> Columns:
    with one_line(f"{path} must be an .npz file of plain arrays"), np.load(path) as file:
        found = {name: file[name] for name in file.files}
    return {name: _numbers(array) if array.ndim == 2 else array for name, array in found.items()}


def _numbers(array: Shaped[np.ndarray, "n p"]) -> np.ndarray:
    """A 2-D array as float32; one that is not of numbers stays no features."""
    return array.astype(np.float32) if array.dtype.kind in "fiu" else array.ravel()


def _parquet(path: Path) -> tuple[Columns, Json]:
    """The columns, lists of numbers as 2-D arrays, and what `headwise embed` says of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with one_line(f"{path} must be a parquet file"):
        table = pq.read_table(path).combine_chunks()
        about = json.loads((table.schema.metadata or {}).get(b"headwise", b"{}"))
    columns: Columns = {}
    for name in table.column_names:
        column, kind = table.column(name), table.schema.field(name).type
        lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        if lists or pa.types.is_fixed_size_list(kind):
            numbers = pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
            columns[name] = _matrix(path, name, column) if numbers else np.empty(len(column))
        else:
            columns[name] = _words(column)
    return columns, about if isinstance(about, dict) else {}


def _words(column: "pa.ChunkedArray") -> np.ndarray:
    """A column of whole numbers or of text; a value that is missing is −1 or ""."""
    import pyarrow as pa

    values = column.to_pylist()
    if pa.types.is_integer(column.type):
        return np.array([-1 if value is None else value for value in values], np.int64)
    return np.array(["" if value is None else str(value) for value in values])


def _matrix(path: Path, name: str, column: "pa.ChunkedArray") -> Float[np.ndarray, "n p"]:
    import pyarrow.compute as pc

    sizes = pc.call_function("list_value_length", [column]).unique().to_pylist()
    if len(sizes) != 1 or sizes[0] is None:
        _unequal(path, name, sizes)
    values = pc.call_function("list_flatten", [column]).to_numpy(zero_copy_only=False)
    return values.astype(np.float32).reshape(len(column), sizes[0])


def _unequal(path: Path, name: str, sizes: list[int | None]) -> NoReturn:
    if not sizes:
        raise UserError(f"{path} must have rows; it has none")
    some = " and ".join("none" if size is None else str(size) for size in sizes[:2])
    raise UserError(f"{path} must have vectors of one length in {name}; got {some} numbers")
