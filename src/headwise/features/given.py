"""Features that are given as a table: that of `headwise embed`, or one that anybody made."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from headwise.data.arrays import as_labels
from headwise.data.images import fingerprint
from headwise.errors import UserError
from headwise.features.columns import Columns, check_columns, first_of, read_columns
from headwise.features.extract import Features
from headwise.files import Json

log = logging.getLogger("headwise")

ABOUT = {"labels": ("label", "labels"), "split": ("split",), "names": ("path", "paths")}
"""The columns that are no features, by what they hold."""
OWN_NAME = "vectors"
"""A column of this name is `h`."""


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
    columns, about = read_columns(path, "--features")
    named = {kind: first_of(columns, names) for kind, names in ABOUT.items()}
    _check(path, columns, named)
    columns = _without_validation(path, columns, named["split"] or "")
    vectors = {name: array for name, array in columns.items() if array.ndim == 2}
    test = _split(path, columns[named["split"] or ""])
    names = columns[named["names"]] if named["names"] else np.empty(0, str)
    labels, classes = numbered_labels(columns[named["labels"] or ""], about, path)
    if not classes:
        raise UserError(f"{path} must have labels; all of them are empty")
    return _labelled(
        FeatureTable(
            path=path,
            taps={
                "h" if name == OWN_NAME else name: torch.from_numpy(array)
                for name, array in vectors.items()
            },
            labels=labels,
            classes=classes,
            test=torch.from_numpy(test),
            names=tuple(map(str, names.tolist())),
            about=about,
        )
    )


def numbered_labels(
    values: Shaped[np.ndarray, " n"], about: Json, path: Path
) -> tuple[Int64[Tensor, " n"], tuple[str, ...]]:
    """Return the place of each row's label among the classes, −1 where it is missing, and the
    classes, in the order in which the images had them where the table says so."""
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), "", values.astype(str))
    labels, classes = as_labels(values, str(path))
    if labels is None:
        return torch.full((len(values),), -1), ()
    if about and {*classes} <= {*about.get("classes", ())}:
        order = torch.tensor([about["classes"].index(name) for name in classes])
        return torch.where(labels < 0, labels, order[labels]), tuple(about["classes"])
    return labels, classes


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
    check_columns(path, columns, (*vectors, *filter(None, named.values())))


def _split(path: Path, values: Shaped[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    found = values.astype(str)
    other = [*{*found.tolist()} - {"train", "test"}]
    if other:
        raise UserError(
            f"{path} must have train or test in every row of `split`; got {sorted(other)[0]!r}"
        )
    return found == "test"
