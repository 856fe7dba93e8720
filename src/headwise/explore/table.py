"""The table that is explored: one row an image, with its `h`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from headwise.errors import UserError, nearest
from headwise.features.columns import Columns, check_columns, first_of, read_columns
from headwise.features.given import ABOUT, OWN_NAME, numbered_labels
from headwise.files import Json


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of `headwise embed`, or one with the same columns. Only `h` must be there."""

    path: Path
    h: Float[Tensor, "n p"]
    """Float32, finite."""
    names: Shaped[np.ndarray, " n"]
    """The `path` of each image, as text; the number of its row in a table without paths."""
    named: bool
    """Whether the table has paths."""
    labels: Int64[Tensor, " n"]
    """Places among `classes`; −1 where a label is missing."""
    classes: tuple[str, ...]
    split: Shaped[np.ndarray, " n"]
    """As the table says it: train, validation or test; "" where it does not say."""
    columns: Columns
    """All columns that are no vectors."""
    about: Json
    """What `headwise embed` says of its table; {} for others."""

    def __len__(self) -> int:
        return len(self.h)

    def label(self, row: int) -> str:
        """Return the name of a row's class; "" where it is missing."""
        place = int(self.labels[row])
        return self.classes[place] if place >= 0 else ""

    def row(self, name: str) -> int:
        """Return the row of the image with this path. Raises `UserError` that names the nearest."""
        rows = np.flatnonzero(self.names == name)
        if not len(rows):
            raise UserError(
                f"--query must be a path in {self.path} or, with --run, an image file; "
                f"got {name!r}; {nearest(name, self._alike(name))}"
            )
        return int(rows[0])

    def _alike(self, name: str) -> list[str]:
        """Some paths that may be meant: those with the same end first, of a long table."""
        end = name.rpartition("/")[2].rpartition(".")[0]
        same = [other for other in self.names if end and end in other][:1000]
        return [*same, *self.names[: 2000 - len(same)]]


def read_table(path: Path) -> Table:
    """Read a table that is to be explored. Raises `UserError` for one without `h` or rows, with
    rows of unequal length, or with NaN."""
    columns, about = read_columns(path, "TABLE")
    vectors = {name for name, array in columns.items() if array.ndim == 2}
    tap = first_of(vectors, ("h", OWN_NAME))
    if tap is None:
        raise UserError(
            f"{path} must have a column h with a vector in every row; it has "
            f"{', '.join(columns) or 'none'}; make one with headwise embed RUN IMAGES --out TABLE"
        )
    rest = {name: array for name, array in columns.items() if name not in vectors}
    label, split, names = (first_of(rest, choices) for choices in ABOUT.values())
    check_columns(path, columns, filter(None, (tap, label, split, names)))
    n = len(columns[tap])
    empty = np.full(n, "", object)
    labels, classes = numbered_labels(rest[label] if label else empty, about, path)
    return Table(
        path=path,
        h=torch.from_numpy(columns[tap]),
        names=rest[names].astype(object) if names else np.arange(n).astype(str).astype(object),
        named=names is not None,
        labels=labels,
        classes=classes,
        split=rest[split].astype(object) if split else empty,
        columns=rest,
        about=about,
    )


def candidates(table: Table) -> tuple[Int64[Tensor, " m"], Int64[Tensor, " m"]]:
    """Return the rows among which images are chosen to be labelled, those of test and validation
    images left out, and their labels. Where all of these have one, labels are ignored."""
    rows = torch.from_numpy(np.flatnonzero(~np.isin(table.split, ("test", "validation"))))
    labels = table.labels[rows]
    if (labels >= 0).all():
        labels = torch.full_like(labels, -1)
    return rows, labels
